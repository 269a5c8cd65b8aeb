"""What tuning chose: the held-out choice of each tuned row, the choice of an oracle, and the gap between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from harness.plan.studies import preference
from harness.scoring.metrics import mious
from harness.store import Results, latest_runs
from reports.format.table import Cell, Column, Score, Section
from reports.rows.ranking import NO_RULE, ORACLE, Board, Counts, Quantity, resampled
from reports.rows.row import Filters, Row, Scored

TITLES = {"cam": "CAM", "pseudo": "pseudo mask", "segmentation": "segmentation"}


@dataclass(frozen=True)
class Trial:
    """A finished trial of a study, and its eval with one threshold rule on the reported split."""

    number: int
    objective: float | None
    eval: str
    miou: float


def sections(board: Board, results: Results, filters: Filters) -> list[Section]:
    """A section for a board's tuned rows (protocol held-out, more than one trial); none where there are none."""
    lines = [
        line
        for row in board.group.rows
        if row.protocol == "held-out" and row.trials > 1
        for quantity in dict.fromkeys(Quantity(p.target, p.tags) for p in board.quantities)
        if (line := _line(row, quantity, results, filters)) is not None
    ]
    if not lines:
        return []
    columns = (
        Column("method", "method"),
        Column("target", "target"),
        Column("chosen", "held-out trial", right=True),
        Column("held_out", "held-out choice", right=True),
        Column("best", "oracle trial", right=True),
        Column("oracle", f"oracle choice{ORACLE}", right=True),
        Column("gap", "gap", "oracle − held-out", right=True, measure="difference"),
    )
    notes = (
        f"{ORACLE} trial and threshold chosen on the split that is reported; both sides with the seed of the trials, "
        "intervals over images, the gap's paired",
    )
    heading = f"Choices of tuned rows · {board.group.head.dataset} · {board.group.head.split}"
    return [Section(heading, columns, tuple(lines), notes=notes, kind="choices")]


def _line(row: Row, quantity: Quantity, results: Results, filters: Filters) -> Mapping[str, Cell] | None:
    """One target of one row; None where either side was not scored."""
    found = {rule: _trials(row, quantity, rule, results, filters) for rule in ("held-out", "oracle")}
    if not found["held-out"] or not found["oracle"]:
        return None
    chosen = max(found["held-out"], key=lambda t: preference(t.objective, t.number))
    best = max(found["oracle"], key=lambda t: (t.miou, -t.number))
    evals = [chosen.eval, best.eval]
    wanted = results.counts.filter(pl.col("eval").is_in(evals))
    counts: Counts = {str(k[0]): f for k, f in wanted.partition_by("eval", as_dict=True).items()}
    drawn = resampled([Scored((t.eval,), (), 0, f"trial {t.number} of {row.study}") for t in (chosen, best)], counts)
    gap = drawn.difference(1, 0)
    scores = [Score(100 * i.value, 100 * i.low, 100 * i.high) for i in (drawn.interval(0), drawn.interval(1))]
    return {
        "method": row.title, "target": TITLES[quantity.target], "chosen": chosen.number, "held_out": scores[0],
        "best": best.number, "oracle": scores[1], "gap": Score(100 * gap.value, 100 * gap.low, 100 * gap.high),
    }  # fmt: skip


def _trials(row: Row, quantity: Quantity, rule: str, results: Results, filters: Filters) -> list[Trial]:
    """Trials of the row's study that ran to the end, scored as the row is, with this rule or without thresholds."""
    done = results.trials.filter(
        pl.col("study") == row.study,
        pl.col("role") == "trial",
        pl.col("status") == "done",
        pl.col("reached") >= 1.0,
        pl.col("protocol") == row.protocol,
        pl.col("key").is_in(row.spent),
    ).unique("key")
    # A trial that was drawn anew has two runs.
    runs = latest_runs(results.runs).select("key", "started")
    done = done.join(runs, on="key").sort("started", "key").unique("trial", keep="last", maintain_order=True)
    evals = results.evals.filter(
        pl.col("target") == quantity.target,
        pl.col("weights") == filters.weights,
        pl.col("split") == row.split,
        pl.col("tags").replace("", "none") == quantity.tags,
        pl.col("threshold_rule").replace("", "none").is_in([rule, NO_RULE]),
    )
    if quantity.target == "segmentation":
        scoring = row.inference
        evals = evals.filter(
            pl.col("scales") == scoring.scales,
            pl.col("flip").fill_null(False) == scoring.flip,
            pl.col("crf") == scoring.crf,
        )
    one = done.join(evals.sort("step", "eval").unique("key", keep="last"), on="key").sort("trial")
    if one.is_empty():
        return []
    scores = mious(results.counts.filter(pl.col("eval").is_in(one["eval"].to_list())))
    value = dict(scores.select("eval", "miou").iter_rows())
    return [
        Trial(r["trial"], r["objective"], r["eval"], float(value[r["eval"]]))
        for r in one.iter_rows(named=True)
        if value.get(r["eval"]) is not None
    ]
