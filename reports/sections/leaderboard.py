"""The leaderboard as a page: its tables, notes and warnings."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from harness.store import Results
from reports.format.notebook import fragment
from reports.format.render import render
from reports.format.table import Section, Table
from reports.rows.ranking import Board, Counts, groups_of, score
from reports.rows.row import Filters
from reports.rows.rows import rows_of
from reports.rows.studies import failures_of
from reports.sections import choices, per_class, plugins
from reports.sections.board import failures, section
from reports.sections.guests import guests_of, has_host

TITLE = "Leaderboard: mIoU in % with 95 % interval (seeds, then images, resampled)"

SMOKE = "smoke"


@dataclass(frozen=True)
class Leaderboard:
    """A leaderboard: its table for printing, and what it was made from."""

    table: Table
    boards: tuple[Board, ...]
    counts: Counts

    def render(self, form: str = "terminal", *, width: int | None = None, colour: bool = False) -> str:
        """Text in one of `reports.format.render.FORMATS`; ValueError for another."""
        return render(self.table, form, width=width, colour=colour)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return fragment(self.table)

    def per_class(self) -> pl.DataFrame:
        """IoU of every class with its interval, columns as `reports.sections.per_class.SCHEMA`."""
        return per_class.frame(self.boards, self.counts)


def build(results: Results, *, sweep: str | None = None, dataset: str | None = None, tier: str | None = None,
          weights: str = "student", split: str | None = None, thresholds: bool = False,
          by_class: bool = False, intervals: bool = True) -> Leaderboard:  # fmt: skip
    """The leaderboard of a store's tables, optionally of one sweep, dataset, tier or split only; without `intervals`
    scores alone, unranked.

    Raises StoreError where counts of a shown eval are missing.
    """
    filters = Filters(sweep, dataset, tier, weights, split)
    rows = rows_of(results, filters)
    counts = results.counts_by_eval
    boards = tuple(score(g, counts, thresholds=thresholds, intervals=intervals) for g in groups_of(rows, counts))
    sections: list[Section] = []
    for board in boards:
        if not has_host(board, boards):
            sections.append(section(board, guests=guests_of(board, boards), thresholds=thresholds))
        sections += plugins.sections(board, counts) if intervals else []
        if thresholds:
            sections += choices.sections(board, results, filters)
        if by_class:
            sections += per_class.sections(board, counts)
    failed = failures_of(results, filters)
    if failed:
        sections.append(failures(failed))
    notes = () if boards else ("no finished run with scores yet",)
    if any(row.tier == SMOKE for board in boards for row in board.group.rows):
        notes = (
            "tier smoke shows that things run, in minutes: what methods reach, and their order, is for lab and paper",
        )
    return Leaderboard(Table(TITLE, tuple(sections), notes), boards, counts)
