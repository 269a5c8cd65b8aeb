"""`python -m reports.leaderboard`: the leaderboard of a store, in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.errors import EXIT_DONE, BadInput, Problem, nearest
from harness.store import Results, load
from harness.words import help_text, main, parse, word
from reports import choices, per_class
from reports.board import failures, section
from reports.output import OUT_TEXT, STORE_TEXT, WEIGHTS_TEXT, deliver, output_problems
from reports.ranking import Board, Counts, groups_of, score
from reports.render import FORMATS, render
from reports.row import Filters
from reports.rows import rows_of
from reports.studies import failures_of
from reports.table import Section, Table

TITLE = "Leaderboard: mIoU in % with 95 % interval (seeds, then images, resampled)"
ABOUT = """Prints method, variant, supervision, backbone, CAM / pseudo-mask / segmentation mIoU with 95 % interval,
seeds, iterations, trials, hours, protocol and rank. Rows that differ in data, split, supervision, CRF, variant, tier,
protocol or budget stand in sections of their own and are never ranked together."""
_TABLES = ("runs", "trials", "evals", "counts")


@dataclass
class LeaderboardWords:
    """The words of `reports.leaderboard`."""

    store: str = word("results", STORE_TEXT)
    format: str = word("terminal", f"{', '.join(FORMATS)}; arrow and parquet write the per-class IoU table")
    out: str | None = word(None, OUT_TEXT)
    per_class: bool = word(False, "add the IoU of every class")
    thresholds: bool = word(
        False, "fixed, held-out and oracle thresholds and, for tuned rows, choices side by side, with their gaps"
    )
    weights: str = word("student", WEIGHTS_TEXT)
    sweep: str | None = word(None, "one sweep by its id; default all")
    dataset: str | None = word(None, "one dataset; default all")
    tier: str | None = word(None, "one tier; default all")
    split: str | None = word(None, "the reported split; default test where it was scored, else val")


@dataclass(frozen=True)
class Leaderboard:
    """A leaderboard: its table for printing, and what it was made from."""

    table: Table
    boards: tuple[Board, ...]
    counts: Counts

    def render(self, form: str = "terminal", *, width: int | None = None, colour: bool = False) -> str:
        """Text in one of `reports.render.FORMATS`; ValueError for another."""
        return render(self.table, form, width=width, colour=colour)

    def per_class(self) -> pl.DataFrame:
        """IoU of every class with its interval, columns as `reports.per_class.SCHEMA`."""
        return per_class.frame(self.boards, self.counts)


def build(results: Results, *, sweep: str | None = None, dataset: str | None = None, tier: str | None = None,
          weights: str = "student", split: str | None = None, thresholds: bool = False,
          by_class: bool = False) -> Leaderboard:  # fmt: skip
    """The leaderboard of a store's tables, optionally of one sweep, dataset, tier or split only.

    Raises StoreError where counts of a shown eval are missing.
    """
    filters = Filters(sweep, dataset, tier, weights, split)
    rows = rows_of(results, filters)
    wanted = sorted({e for r in rows for s in r.scores.values() for e in s.evals})
    kept = results.counts.filter(pl.col("eval").is_in(wanted))
    counts = {str(k[0]): f for k, f in kept.partition_by("eval", as_dict=True).items()}
    boards = tuple(score(g, counts, thresholds=thresholds) for g in groups_of(rows, counts))
    sections: list[Section] = []
    for board in boards:
        sections.append(section(board, thresholds=thresholds))
        if thresholds:
            sections += choices.sections(board, results, filters)
        if by_class:
            sections += per_class.sections(board, counts)
    failed = failures_of(results, filters)
    if failed:
        sections.append(failures(failed))
    notes = () if boards else ("no finished run with scores yet",)
    return Leaderboard(Table(TITLE, tuple(sections), notes), boards, counts)


def for_tracker(results: Results, sweep: str) -> str:
    """The leaderboard of one sweep as MLflow shows it."""
    return build(results, sweep=sweep).render("markdown")


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if any(a in ("-h", "--help", "help") for a in argv):
        print(help_text("reports.leaderboard", LeaderboardWords, ABOUT))
        return EXIT_DONE
    words = parse(argv, LeaderboardWords).words
    problems = output_problems(words)
    if problems:
        raise BadInput(problems)
    results = load(words.store, _TABLES)
    _check_found(words, results)
    board = build(results, sweep=words.sweep, dataset=words.dataset, tier=words.tier, weights=words.weights,
                  split=words.split, thresholds=words.thresholds, by_class=words.per_class)  # fmt: skip
    deliver(words, board.table, board.per_class)
    return EXIT_DONE


def _check_found(words: Any, results: Results) -> None:
    problems = []
    known = {"sweep": {*results.trials["sweep"], *results.runs["sweep"]}, "dataset": {*results.runs["dataset"]},
             "tier": {*results.runs["tier"]}}  # fmt: skip
    for name, values in known.items():
        asked = getattr(words, name)
        values = {v for v in values if v}
        if asked is not None and asked not in values:
            fix = nearest(asked, values) if values else "the store is empty"
            problems.append(Problem(name, f"{asked!r} is not in {words.store}", fix))
    if problems:
        raise BadInput(problems)


if __name__ == "__main__":
    raise SystemExit(main(run))
