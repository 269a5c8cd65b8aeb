"""Pure functions on tensors: CAMs, refinement, affinities, losses."""
