"""Scores of maps at every background threshold, and what choosing one costs."""

from __future__ import annotations

from statistics import fmean

import polars as pl

from harness.scoring.metrics import iou
from reports.format.html import Block
from reports.format.table import Cell, Column, Section
from reports.page.charts.style import Trace, chart, plain
from reports.page.view import View, board_name, quantity_name
from reports.rows.comparing import score_cell
from reports.rows.ranking import ORACLE, Board, Quantity, resampled
from reports.rows.row import RULES, Row, Scored, Setting

SYMBOLS = {"fixed": "circle", "held-out": "diamond", "oracle": "star"}


def curves(view: View) -> list[Block]:
    """For each board and target with thresholds a chart of mIoU by threshold, and a table of the gaps."""
    found = _mious(view.results.curves)
    blocks: list[Block] = []
    for board in view.boards:
        for quantity in board.quantities:
            rows = [(r, s) for r in board.group.rows if (s := _by_rule(r, quantity))]
            lines = [_line(view, row, scored, found) for row, scored in rows]
            traces = [trace for line in lines for trace in line]
            if not traces:
                continue
            rules = {"type": "scatter", "mode": "markers", "x": [None], "y": [None]}
            key: list[Trace] = [
                {**rules, "name": rule, "marker": {"symbol": symbol, "size": 9, "color": "#8c96a0"}}
                for rule, symbol in SYMBOLS.items()
            ]
            blocks.append(
                chart(f"{quantity_name(quantity)} · {board_name(board)}", [*traces, *key], x="background threshold",
                      y="mIoU in %", height=400,
                      caption="mean over seeds; points: the preset's threshold, the one chosen for tuning, and "
                              f"the oracle's{ORACLE}, which reads the split that is reported")
            )  # fmt: skip
            blocks += _gaps(view, board, quantity, rows)
    return blocks


def _by_rule(row: Row, quantity: Quantity) -> dict[str, Scored]:
    settings = {rule: Setting(quantity.target, quantity.tags, rule) for rule in RULES}
    return {rule: row.scores[s] for rule, s in settings.items() if s in row.scores}


def _mious(curves: pl.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """By eval, thresholds in order with the mIoU in % at each."""
    at = pl.concat_str("eval", pl.col("threshold").cast(pl.Utf8), separator="|")
    # The one definition of IoU, each threshold of an eval taken for an eval of its own.
    parts = curves.select(at.alias("eval"), "class", "tp", "fp", "fn")
    means = iou(parts).group_by("eval").agg(pl.col("iou").mean())
    split = pl.col("eval").str.split_exact("|", 1).struct.rename_fields(["of", "threshold"])
    table = means.select(split, "iou").unnest("eval").with_columns(pl.col("threshold").cast(pl.Float64))
    out: dict[str, list[tuple[float, float]]] = {}
    for of, threshold, value in table.sort("of", "threshold").iter_rows():
        out.setdefault(of, []).append((threshold, 100 * value))
    return out


def _line(
    view: View, row: Row, scored: dict[str, Scored], found: dict[str, list[tuple[float, float]]]
) -> list[Trace]:  # fmt: skip
    """The curve of a row, mean over those seeds whose curve the store has, and its points."""
    curves = next((c for r in reversed(RULES) if r in scored and (c := _known(scored[r], found))), [])
    if not curves:
        return []
    by_threshold: dict[float, list[float]] = {}
    for curve in curves:
        for threshold, value in curve:
            by_threshold.setdefault(threshold, []).append(value)
    line = view.lines[view.name(row)]
    name = plain(view.name(row))
    traces: list[Trace] = [
        {"type": "scatter", "mode": "lines", "name": name, "legendgroup": name, "line": line,
         "x": sorted(by_threshold), "y": [fmean(by_threshold[t]) for t in sorted(by_threshold)],
         "hovertemplate": "%{fullData.name} %{y:.1f} at %{x}<extra></extra>"}
    ]  # fmt: skip
    for rule, one in scored.items():
        values = [view.mious[e] for e in one.evals if e in view.mious]
        if values and one.thresholds:
            traces.append(
                {"type": "scatter", "mode": "markers", "name": f"{name} {rule}", "legendgroup": name,
                 "showlegend": False, "x": [fmean(one.thresholds)], "y": [100 * fmean(values)],
                 "marker": {"symbol": SYMBOLS[rule], "size": 9, "color": line["color"]},
                 "hovertemplate": "%{fullData.name}: %{y:.1f} at %{x:.2f}<extra></extra>"}
            )  # fmt: skip
    return traces


def _known(scored: Scored, found: dict[str, list[tuple[float, float]]]) -> list[list[tuple[float, float]]]:
    return [found[e] for e in scored.evals if e in found]


def _gaps(view: View, board: Board, quantity: Quantity, rows: list[tuple[Row, dict[str, Scored]]]) -> list[Block]:
    """A table of the scores under each rule, and oracle minus held-out, paired."""
    lines: list[dict[str, Cell]] = []
    for row, scored in rows:
        drawn = resampled(list(scored.values()), view.leaderboard.counts)
        at = {rule: n for n, rule in enumerate(scored)}
        line: dict[str, Cell] = {"method": view.name(row)}
        line |= {rule: score_cell(drawn.interval(n)) for rule, n in at.items()}
        if {"oracle", "held-out"} <= at.keys():
            line["gap"] = score_cell(drawn.difference(at["oracle"], at["held-out"]))
        lines.append(line)
    if not any("gap" in line for line in lines):
        return []
    columns = (
        Column("method", "method"),
        *(Column(rule, rule + (ORACLE if rule == "oracle" else ""), right=True) for rule in RULES),
        Column("gap", "gap", "oracle − held-out", right=True, measure="difference"),
    )
    heading = f"Price of choosing a threshold without the reported split: {quantity_name(quantity)}"
    return [Section(heading, columns, tuple(lines), caption=board_name(board), kind="thresholds")]
