"""Loss terms over the steps of each row's runs."""

from __future__ import annotations

import polars as pl

from harness.plan.rebuilt import RUNG
from reports.format.html import Block
from reports.page.charts.style import PALETTE, Trace, chart, plain
from reports.page.view import View, board_name

POINTS = 80
"""Points of a curve: the means of as many equal spans of steps."""


def curves(view: View) -> list[Block]:
    """A chart for each row and training stage: every term, its mean over seeds and spans of steps."""
    keys = sorted({k for row in view.rows for k in row.keys})
    steps = view.results.steps.filter(pl.col("key").is_in(keys), pl.col("stage") != RUNG)
    last = pl.col("step").max().over("key", "stage") + 1
    spans = (pl.col("step") * POINTS // pl.max_horizontal(last, pl.lit(POINTS))).alias("span")
    means = steps.with_columns(spans).group_by("key", "stage", "name", "span").agg(
        pl.col("step").mean(), pl.col("value").mean()
    )  # fmt: skip
    by_key = {str(k[0]): frame for k, frame in means.partition_by("key", as_dict=True).items()}
    blocks: list[Block] = []
    seen: set[tuple[str, ...]] = set()
    for board in view.boards:
        for row in board.group.rows:
            mine = [by_key[k] for k in row.keys if k in by_key]
            if not mine or row.keys in seen:
                continue
            seen.add(row.keys)
            for (stage,), frame in sorted(pl.concat(mine).partition_by("stage", as_dict=True).items()):
                title = view.name(row) + ("" if stage == "train" else f" · {stage}")
                blocks.append(
                    chart(title, _terms(frame), x="step", caption=f"{board_name(board)}, mean of "
                          f"{len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}", wide=False, height=280)
                )  # fmt: skip
    return blocks


def _terms(frame: pl.DataFrame) -> list[Trace]:
    lines = frame.group_by("name", "span").agg(pl.col("step").mean(), pl.col("value").mean()).sort("name", "span")
    return [
        {"type": "scatter", "mode": "lines", "name": plain(name), "x": part["step"].round(0).to_list(),
         "y": part["value"].to_list(), "line": {"width": 1.4, "color": PALETTE[n % len(PALETTE)]},
         "hovertemplate": "%{fullData.name} %{y:.3g}<extra>step %{x}</extra>"}
        for n, ((name,), part) in enumerate(sorted(lines.partition_by("name", as_dict=True).items()))
    ]  # fmt: skip
