"""The trials of a row's study that ran to the end, with what they scored on the reported split."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from harness.plan.studies import preference
from harness.scoring.metrics import mious
from harness.store import Results, latest_runs
from reports.rows.ranking import Quantity
from reports.rows.row import NO_RULE, Row


@dataclass(frozen=True)
class Trial:
    """A finished trial of a study, and its eval with one threshold rule on the reported split."""

    number: int
    objective: float | None
    eval: str
    miou: float


def chosen_of(trials: list[Trial]) -> Trial:
    """The trial that tuning chose."""
    return max(trials, key=lambda t: preference(t.objective, t.number))


def trials_of(row: Row, quantity: Quantity, rule: str, results: Results, weights: str) -> list[Trial]:
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
    runs = latest_runs(results.runs.filter(pl.col("key").is_in(row.spent))).select("key", "started")
    done = done.join(runs, on="key").sort("started", "key").unique("trial", keep="last", maintain_order=True)
    evals = results.evals.filter(
        pl.col("target") == quantity.target,
        pl.col("weights") == weights,
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
    scores = mious(results.counts_by_eval.of(one["eval"].to_list()))
    value = dict(scores.select("eval", "miou").iter_rows())
    return [
        Trial(r["trial"], r["objective"], r["eval"], float(value[r["eval"]]))
        for r in one.iter_rows(named=True)
        if value.get(r["eval"]) is not None
    ]
