"""The page of a store: its chapters in order, each from the queries of `reports.rows`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from harness.api.vocabulary import TARGETS
from harness.store import Results, latest_runs, load
from reports.format.html import Block, Chapter, Page, Words, page_html
from reports.rows.row import USUAL_TAGS, Filters
from reports.rows.studies import by_key, chosen_runs, hours
from reports.sections import leaderboard
from reports.sections.board import NAMES
from reports.sections.leaderboard import Leaderboard

NOTHING = "No finished run with scores yet: what failed stands below, and the page fills as runs finish."


def page_of(store: str | Path, *, sweep: str | None = None, dataset: str | None = None, tier: str | None = None,
            weights: str = "student", split: str | None = None) -> str:  # fmt: skip
    """The page of a store, or of the part that the words name, as HTML. Raises StoreError as `harness.store.load`."""
    results = load(store)
    filters = Filters(sweep, dataset, tier, weights, split)
    return page_html(build(results, filters))


def build(results: Results, filters: Filters) -> Page:
    """The page as a model."""
    board = leaderboard.build(results, sweep=filters.sweep, dataset=filters.dataset, tier=filters.tier,
                              weights=filters.weights, split=filters.split)  # fmt: skip
    chapters = [_leaderboard(board)]
    return Page(
        "Benchmark of weakly and sparsely supervised segmentation",
        tuple(c for c in chapters if c.blocks),
        facts=_facts(results, filters, board),
        notes=board.table.notes,
        metrics=_metrics(board),
    )


def _leaderboard(board: Leaderboard) -> Chapter:
    blocks: list[Block] = list(board.table.sections)
    if not board.boards:
        blocks.insert(0, Words((NOTHING,)))
    lead = "mIoU in % on the reported split, 95 % intervals over seeds and images. Sections are never ranked together."
    return Chapter("leaderboard", "Leaderboard", tuple(blocks), lead)


def _metrics(board: Leaderboard) -> dict[str, str]:
    """What a reader may rank by, in the order in which targets are made."""
    found = {q.id: q for b in board.boards for q in b.quantities}
    order = sorted(found.values(), key=lambda q: (TARGETS.index(q.target), q.tags != USUAL_TAGS.get(q.target), q.tags))
    usual = {q.id: q.tags == USUAL_TAGS.get(q.target, "none") for q in order}
    return {q.id: NAMES[q.target] + ("" if usual[q.id] else f", tags {q.tags}") for q in order}


def _facts(results: Results, filters: Filters, board: Leaderboard) -> tuple[str, ...]:
    runs = chosen_runs(results, filters)
    if runs.is_empty():
        return ("no runs",)
    by_status = dict(latest_runs(runs).group_by("status").len().iter_rows())
    told = [f"{by_status[s]:,} {s}" for s in ("done", "pruned", "failed") if s in by_status]
    methods = runs.filter(pl.col("status") == "done")["method"].n_unique()
    gpu, core = hours(by_key(runs).values())
    spent = [f"{gpu:.1f} GPU-h"] * (gpu > 0) + [f"{core:.1f} core-h"] * (core > 0)
    datasets = runs["dataset"].unique().sort().to_list()
    return (
        f"runs: {', '.join(told)}", f"{methods} method{'s' * (methods != 1)}", ", ".join(datasets), *spent,
    )  # fmt: skip
