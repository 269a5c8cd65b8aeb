"""What runs inside a worker: one generic training loop, stages with a cache, checkpoints, scoring of a run."""
