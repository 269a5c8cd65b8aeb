"""Printed numbers beside ours: claims, verdicts, component tables."""
