"""Sparse labels: points, scribbles, clicks and blocks, derived from masks or read from files. 255 = unlabelled."""

from __future__ import annotations

import re

KINDS = ("points", "scribbles", "clicks20", "clicks50", "clicks100", "blocks")
"""Kinds of sparse labels by command-line word."""
CLICKS = re.compile(r"clicks([1-9]\d{0,3})")
"""Any number of clicks an image can be derived; these are named so."""

__all__ = ["CLICKS", "KINDS"]
