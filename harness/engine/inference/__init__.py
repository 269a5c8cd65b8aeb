"""From trained networks to counts: forward passes, predictions, evals, scores."""
