"""One table model that every report fills and every format renders: sections of typed cells."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.errors import shown

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

    number: int
    tied: bool = False

    def __str__(self) -> str:
        return f"{self.number}{SHARED if self.tied else ''}"


@dataclass(frozen=True)
class Amount:
    """A number with the digits that make sense for it."""

    value: float
    digits: int = 1
    unit: str = ""

    least: float = 0.0
    """A positive number below it is shown as `< least`, never as 0."""

    def __str__(self) -> str:
        shown = f"< {self.least:g}" if self.value < self.least else f"{self.value:.{self.digits}f}"
        return f"{shown}{' ' + self.unit if self.unit else ''}"


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
    spare: int = 0
    """Where a terminal is too narrow, columns with the highest number go first; those with 0 stay."""


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
    about: str = ""
    """The start of the heading, where it alone says what the rows are of: pages print the rest smaller."""


@dataclass(frozen=True)
class Table:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


def p_value(p: float) -> Amount | None:
    """A p-value: resampling shows none to be 0. NaN gives no cell."""
    return None if math.isnan(p) else Amount(max(p, sys.float_info.min), 4, least=1e-4)


def clean(table: Table) -> Table:
    """The table without control characters in anything that a run, a file or a word may have brought."""
    return replace(
        table,
        title=shown(table.title),
        notes=tuple(map(shown, table.notes)),
        sections=tuple(_clean(s) for s in table.sections),
    )


def _clean(section: Section) -> Section:
    columns = (replace(c, title=shown(c.title), sub=shown(c.sub)) for c in section.columns)
    return replace(
        section,
        heading=shown(section.heading),
        about=shown(section.about),
        columns=tuple(columns),
        rows=tuple({k: _clean_cell(v) for k, v in row.items()} for row in section.rows),
        facts={k: shown(v) for k, v in section.facts.items()},
        caption=shown(section.caption),
        notes=tuple(map(shown, section.notes)),
    )


def _clean_cell(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return shown(" ".join(cell.splitlines()))
    return Same(shown(cell.value)) if isinstance(cell, Same) else cell


def text(cell: Cell) -> str:
    """A cell as it is printed; a missing one is a dash."""
    return DASH if cell is None else str(cell)
