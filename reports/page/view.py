"""What every chapter of the page is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from harness.api.vocabulary import TARGETS
from harness.scoring.metrics import iou
from harness.store import Results
from reports.page.charts.style import styles
from reports.rows.ranking import Board, Quantity
from reports.rows.row import USUAL_TAGS, Filters, Row
from reports.rows.studies import Runs
from reports.sections.board import NAMES
from reports.sections.leaderboard import Leaderboard

_TELL_APART = ("backbone", "decoder")
"""Fields of a row that tables show beside its title, and charts do not."""


@dataclass(frozen=True)
class View:
    """A store's tables, its boards and its runs by key, under the reader's filters."""

    results: Results
    filters: Filters
    leaderboard: Leaderboard
    runs: Runs
    store: Path | None = None
    """Where the store lies: its pictures are read from there."""
    words: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """The words of each sweep, a set for each row of its plan; empty where the store has no plan of it."""

    @property
    def boards(self) -> tuple[Board, ...]:
        """The ranking groups in the leaderboard's order."""
        return self.leaderboard.boards

    @property
    def rows(self) -> list[Row]:
        """All rows of all boards."""
        return [row for board in self.boards for row in board.group.rows]

    @cached_property
    def _names(self) -> dict[tuple[str, ...], str]:
        found: dict[tuple[str, ...], str] = {}
        for board in self.boards:
            for row in board.group.rows:
                alike = [other for other in board.group.rows if other.title == row.title]
                more = [str(getattr(row, part)) for part in _TELL_APART if len({getattr(r, part) for r in alike}) > 1]
                found[row.keys] = max(found.get(row.keys, ""), " · ".join([row.title, *more]), key=len)
        return found

    def name(self, row: Row) -> str:
        """A row's title, with its backbone or decoder where its board has several of that title on others."""
        return self._names[row.keys]

    def names(self, rows: Iterable[Row]) -> list[str]:
        """Names of rows that stand side by side, with their supervision where it differs."""
        rows = list(rows)
        several = len({row.supervision for row in rows}) > 1
        return [f"{self.name(row)} · {row.supervision}" if several else self.name(row) for row in rows]

    @cached_property
    def lines(self) -> dict[str, dict[str, Any]]:
        """Colour and dash by a row's name: the same on the whole page."""
        return styles(self.name(row) for row in self.rows)

    @cached_property
    def classes(self) -> pl.DataFrame:
        """IoU in [0,1] of every class of every eval that a row shows: eval, class, iou; absent classes are out."""
        shown = dict.fromkeys(e for row in self.rows for s in row.scores.values() for e in s.evals)
        counts = [self.leaderboard.counts[e] for e in shown if e in self.leaderboard.counts]
        return iou(pl.concat(counts)) if counts else iou(self.results.counts.clear())

    @cached_property
    def mious(self) -> Mapping[str, float]:
        """mIoU in [0,1] by eval."""
        means = self.classes.group_by("eval").agg(pl.col("iou").mean())
        return dict(means.iter_rows())


def board_name(board: Board) -> str:
    """What a board's rows are of, short: beside a chart its heading would be too long."""
    head = board.group.head
    parts = [head.dataset, head.split, head.supervision, head.variant, head.tier, head.protocol]
    parts += [f"{head.trials} trials"] * (head.trials > 1) + [f"CRF {head.inference.crf}"] * (
        head.inference.crf != "none"
    )
    return " · ".join([*map(str, parts), *([board.group.apart] if board.group.apart else [])])


def quantity_name(quantity: Quantity) -> str:
    """`CAM`, and its tags where they are not the usual ones."""
    usual = quantity.id == quantity.target
    return NAMES[quantity.target] + ("" if usual else f", tags {quantity.tags}")


def same_images(boards: Sequence[Board]) -> list[list[Board]]:
    """Boards whose rows were scored on the same images under the same tier."""
    found: dict[tuple[str, ...], list[Board]] = {}
    for board in boards:
        head = board.group.head
        found.setdefault((head.dataset, head.split, head.tier, board.group.digest), []).append(board)
    return list(found.values())


def quantities_of(boards: Sequence[Board]) -> list[Quantity]:
    """What rows of these boards were scored at, in the order in which targets are made, the usual tags first."""
    found = dict.fromkeys(q for b in boards for q in b.quantities)
    return sorted(found, key=lambda q: (TARGETS.index(q.target), q.tags != USUAL_TAGS.get(q.target), q.tags))
