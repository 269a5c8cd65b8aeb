"""One table model that every report fills and every format renders: sections of typed cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

DASH = "–"
SHARED = "="
"""Stands behind a rank that several rows share."""


@dataclass(frozen=True)
class Score:
    """A score in percent with its 95 % interval, both in [0,100]."""

    value: float
    low: float
    high: float
    rank: int | None = None
    """1 + number of rows that are significantly better; None where the row is not ranked."""
    excluded: int = 0
    """Classes absent from prediction and truth."""
    mark: str = ""
    """Footnote sign that stands behind the value wherever it is shown."""

    def __str__(self) -> str:
        return f"{self.value:.1f}{self.mark} {self.interval}"

    @property
    def interval(self) -> str:
        """`[low, high]`; dashes where there is none (one image)."""
        if math.isnan(self.low) or math.isnan(self.high):
            return f"[{DASH}, {DASH}]"
        return f"[{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Rank:
    """A place in a ranking, and whether it is shared."""

    place: int
    tied: bool = False

    def __str__(self) -> str:
        return f"{self.place}{SHARED if self.tied else ''}"


@dataclass(frozen=True)
class Amount:
    """A number with the digits that make sense for it."""

    value: float
    digits: int = 1
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.value:.{self.digits}f}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True)
class Same:
    """What the row above says too: blank where it is printed, whole in csv."""

    value: str

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class Signed:
    """A difference of two scores, in points."""

    value: float

    def __str__(self) -> str:
        shown = f"{self.value:+.1f}".replace("-", "−")
        return "0.0" if shown in ("+0.0", "−0.0") else shown


Cell = str | int | Score | Rank | Amount | Same | Signed | None


@dataclass(frozen=True)
class Column:
    """One column: `id` names it in machine formats, `title` (and `sub`, a second line) in printed ones."""

    id: str
    title: str
    sub: str = ""
    right: bool = False
    said_above: bool = False
    """Equal in all rows and in the section's heading: a narrow terminal leaves it out."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What holds for each score of the column (split, tags); columns of their own in csv."""
    measure: str = "miou"
    """What the value of a score is called in csv."""


@dataclass(frozen=True)
class Section:
    """Rows that may be compared with each other, and what they have in common."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    """What holds for all rows; further columns in csv."""
    caption: str = ""
    notes: tuple[str, ...] = ()
    kind: str = "scores"
    """scores, classes, or failures; csv writes the first kind only."""


@dataclass(frozen=True)
class Table:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


def text(cell: Cell) -> str:
    """A cell as it is printed; a missing one is a dash."""
    return DASH if cell is None else str(cell)
