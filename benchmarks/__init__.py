"""Speed next to plain restatements of what the field's code does: equality first, then interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One comparison: two callables that do the same work on the same input."""

    name: str
    reference: Callable[[], Any]
    """The plain restatement; written for this purpose, with the structure and cost of published code."""
    ours: Callable[[], Any]
    equal: Callable[[], str]
    """Checks that both agree, and says how well. Raises AssertionError where they do not."""
    goal: float | None = None
    """Least ratio reference / ours of process CPU time; None: only shown."""
    agree: Callable[[Any, Any], str] | None = None
    """Checks what the two return in each timed round, where that is possible. Raises AssertionError."""
    prepare: Callable[[], Any] | None = None
    """Makes the input, where that is not done by the first call; not counted as memory."""
    unit: str = ""
    """What one call works on, for the table."""
    images: int = 0
    """Images that one call works on, where their number a second says something."""
