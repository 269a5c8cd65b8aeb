"""The page of a store: its chapters in order, each from the queries of `reports.rows`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import Problem
from harness.files import write_bytes
from harness.store import Results, Store, load
from harness.store.outlines import sweeps
from reports.format.html import Block, Chapter, Page, Words, page_html
from reports.page import examples, provenance
from reports.page.charts import classes, cost, thresholds, training, tuning
from reports.page.view import View, quantities_of, quantity_name
from reports.rows.row import Filters
from reports.rows.rows import load_rows
from reports.rows.studies import by_key, chosen_runs, hours
from reports.sections import leaderboard
from reports.sections.leaderboard import Leaderboard

TITLE = "Benchmark of weakly and sparsely supervised segmentation"
NOTHING = "No finished run with scores yet: what failed stands below, and the page fills as runs finish."
EXAMPLES = "examples"
PAGE = "board.html"
"""What the page of a whole store is called inside it."""
CHAPTERS: tuple[tuple[str, str, str, Callable[[View], list[Block]]], ...] = (
    ("cost", "Score and cost", "What a point of mIoU costs: each row's score against the hours of its whole study.",
     cost.score_against_hours),
    ("classes", "Classes", "IoU in % of every class, in the dataset's order, mean over seeds.", classes.heat_maps),
    ("thresholds", "Thresholds", "Maps become masks at a background threshold: what each value of it gives.",
     thresholds.curves),
    ("tuning", "Tuning", "What searching gave over the default, and what it looked at.", tuning.blocks),
    ("training", "Training", "Terms of the loss while the rows' runs trained.", training.curves),
    ("time", "Time", "Where the hours went, by stage.", cost.stages),
    (EXAMPLES, "Examples", "What each row makes of the same images, chosen from the counts.", examples.galleries),
    ("ledger", "Ledger", provenance.LEAD, provenance.ledger),
    ("provenance", "Provenance", "Where every row comes from, and the command that makes it again.",
     provenance.provenance),
)  # fmt: skip


def page_of(store: str | Path, *, sweep: str | None = None, dataset: str | None = None, tier: str | None = None,
            weights: str = "student", split: str | None = None, pictures: bool = False) -> str:  # fmt: skip
    """The page of a store, or of the part that the words name, as HTML.

    `pictures` predicts those that the store lacks and adds them to it; what could not be stands on the page. Raises
    StoreError as `harness.store.load`.
    """
    view = view_of(store, Filters(sweep, dataset, tier, weights, split))
    problems: list[Problem] = []
    if pictures:
        problems = examples.add_missing(view, Store(store))
        artifacts = load(store, ("artifacts",)).artifacts
        view = replace(view, results=view.results.with_tables(artifacts=artifacts))
    return page_html(build(view, problems))


def view_of(store: str | Path, filters: Filters) -> View:
    """What the page of a store is made from. Raises StoreError as `harness.store.load`."""
    results = load_rows(store, filters, trials=True, further=("artifacts",))
    board = _leaderboard_of(results, filters)
    # The two long tables: only what the page draws.
    rows = [row for b in board.boards for row in b.group.rows]
    evals = [e for row in rows for s in row.scores.values() for e in s.evals]
    keys = [k for row in rows for k in (*row.keys, *row.spent)]
    only = {"curves": pl.col("eval").is_in(evals), "steps": pl.col("key").is_in(keys)}
    long = load(store, tuple(only), only=only)
    words = {str(s["sweep"]): s["words"] if isinstance(s["words"], list) else [s["words"]] for s in sweeps(Path(store))}
    runs = by_key(chosen_runs(results, filters))
    return View(results.with_tables(**long.tables), filters, board, runs, Path(store), words)


def write_page(store: str | Path, out: str | Path | None = None, **part: Any) -> Path:
    """Write the page of a store, by default as PAGE inside it; `part` as for `page_of`. Where it is.

    Raises OSError where it cannot be written.
    """
    path = Path(store) / PAGE if out is None else Path(out)
    write_bytes(path, page_of(store, **part).encode())
    return path


def build(view: View, problems: Sequence[Problem] = ()) -> Page:
    """The page as a model; `problems`: why pictures could not be made."""
    board = view.leaderboard
    chapters = [_leaderboard(board)]
    if view.boards:
        made = [Chapter(id, title, tuple(make(view)), lead) for id, title, lead, make in CHAPTERS]
        told = Words(tuple(f"not predicted: {p.where}: {p.found}; {p.fix}" for p in problems))
        chapters += [replace(c, blocks=(*c.blocks, told)) if problems and c.id == EXAMPLES else c for c in made]
    return Page(
        TITLE,
        tuple(c for c in chapters if c.blocks),
        facts=_facts(view),
        notes=board.table.notes,
        metrics=_metrics(board),
    )


def _leaderboard_of(results: Results, filters: Filters) -> Leaderboard:
    return leaderboard.build(results, sweep=filters.sweep, dataset=filters.dataset, tier=filters.tier,
                             weights=filters.weights, split=filters.split)  # fmt: skip


def _leaderboard(board: Leaderboard) -> Chapter:
    blocks: list[Block] = list(board.table.sections)
    if not board.boards:
        blocks.insert(0, Words((NOTHING,)))
    lead = "mIoU in % on the reported split, 95 % intervals over seeds and images. Sections are never ranked together."
    return Chapter("leaderboard", "Leaderboard", tuple(blocks), lead)


def _metrics(board: Leaderboard) -> dict[str, str]:
    """What a reader may rank by, in the order in which targets are made."""
    return {q.id: quantity_name(q) for q in quantities_of(board.boards)}


def _facts(view: View) -> tuple[str, ...]:
    """What the store holds, in a line."""
    runs = list(view.runs.values())
    if not runs:
        return ("no runs",)
    states = [r["status"] for r in runs]
    told = [f"{states.count(s):,} {s}" for s in ("done", "pruned", "failed") if s in states]
    methods = len({r["method"] for r in runs if r["status"] == "done"})
    gpu, core = hours(runs)
    spent = [f"{gpu:.1f} GPU-h"] * (gpu > 0) + [f"{core:.1f} core-h"] * (core > 0)
    datasets = sorted({str(r["dataset"]) for r in runs})
    return f"runs: {', '.join(told)}", f"{methods} method{'s' * (methods != 1)}", ", ".join(datasets), *spent
