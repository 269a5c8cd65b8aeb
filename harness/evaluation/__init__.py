"""Scoring apart from training: finished runs again, published weights, and the masks or CAMs of other programs."""
