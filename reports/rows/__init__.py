"""Queries over the store: rows, studies, ranking."""
