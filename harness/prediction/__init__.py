"""Masks of photos that have no truth: which network, how it sees them, and the files that are written."""
