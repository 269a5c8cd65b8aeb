"""Bricks that methods share."""
