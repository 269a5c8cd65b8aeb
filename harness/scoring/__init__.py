"""Scores: counts of pixels, exact threshold curves, the one definition of IoU, and intervals."""
