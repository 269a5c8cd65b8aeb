"""IoU of every class: as a data frame (`format=arrow|parquet`) and as sections of the printed table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from reports.format.table import Cell, Column, Score, Section
from reports.rows.ranking import Board, Counts, Quantity, resampled
from reports.rows.row import Row, Scored
from reports.sections.board import baseline_name, display_name, quantity_title

SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("dataset", "split", "method", "variant", "supervision", "backbone", "decoder", "tier", "protocol",
                     "crf", "scales", "target", "tags", "threshold_rule", "weights", "study"), pl.Utf8()),
    "seeds": pl.Int64(), "iterations": pl.Int64(), "class": pl.Int16(), "name": pl.Utf8(), "iou": pl.Float64(),
    "low": pl.Float64(), "high": pl.Float64(), "tp": pl.Int64(), "fp": pl.Int64(), "fn": pl.Int64(),
    "dice": pl.Float64(), "dice_low": pl.Float64(), "dice_high": pl.Float64(), "ablation": pl.Utf8(),
}  # fmt: skip
"""One row per leaderboard row, target and class. `iou`, `low`, `high` in [0,1]: mean over seeds and its 95 % interval;
tp, fp, fn: pixels, summed over images and seeds. Absent classes have no row; `dice` is null but for datasets whose
papers report it."""


def frame(boards: Sequence[Board], counts: Counts) -> pl.DataFrame:
    """The per-class table of all boards."""
    rows = [line for board in boards for quantity in board.quantities for line in _lines(board, quantity, counts)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def sections(board: Board, counts: Counts) -> list[Section]:
    """A section per target: classes down, methods across."""
    out = []
    for quantity in board.quantities:
        lines = _lines(board, quantity, counts)
        measures = {"IoU": ("iou", "low", "high")}
        if board.dice:
            measures["Dice"] = ("dice", "dice_low", "dice_high")
        order = [i for i, r in enumerate(board.group.rows) if quantity.setting(r) is not None]
        columns = [Column("class", "class", right=True), Column("name", "name")]
        columns += [Column(f"row{i}", display_name(board.group.rows[i]), right=True) for i in order]
        for measure, names in measures.items():
            cells: dict[int, dict[str, Cell]] = {}
            for line in lines:
                row = cells.setdefault(line["class"], {"class": line["class"], "name": line["name"]})
                row[f"row{line['row']}"] = Score(*(100 * line[n] for n in names))
            heading = f"{quantity_title(quantity)} {measure} by class, {board.group.head.split}, tags {quantity.tags}"
            classes = tuple(cells[c] for c in sorted(cells))
            out.append(Section(heading, tuple(columns), classes, kind="classes"))
    return out


def _lines(board: Board, quantity: Quantity, counts: Counts) -> list[dict[str, Any]]:
    cells = {i: r.scores[s] for i, r in enumerate(board.group.rows) if (s := quantity.setting(r)) is not None}
    drawn = resampled(list(cells.values()), counts, classes=True)
    dice = resampled(list(cells.values()), counts, classes=True, measure="dice") if board.dice else None
    out = []
    for n, (i, scored) in enumerate(cells.items()):
        row = board.group.rows[i]
        intervals = drawn.class_intervals(n)
        dices = None if dice is None else dice.class_intervals(n)
        facts = _facts(row, quantity, scored)
        for pixels in _pixels(scored, counts).to_dicts():
            found = intervals[pixels["class"]]
            name = row.class_names[pixels["class"]] if pixels["class"] < len(row.class_names) else str(pixels["class"])
            line = {**facts, **pixels, "row": i, "name": name, "iou": found.value, "low": found.low,
                    "high": found.high, "dice": None, "dice_low": None, "dice_high": None}  # fmt: skip
            if dices is not None:
                by_class = dices[pixels["class"]]
                line |= {"dice": by_class.value, "dice_low": by_class.low, "dice_high": by_class.high}
            out.append(line)
    return out


def _pixels(scored: Scored, counts: Counts) -> pl.DataFrame:
    both = pl.concat([counts[e] for e in scored.evals]).group_by("class").agg(pl.col("tp", "fp", "fn").sum())
    return both.filter(pl.sum_horizontal("tp", "fp", "fn") > 0).sort("class")


def _facts(row: Row, quantity: Quantity, scored: Scored) -> dict[str, Any]:
    setting = quantity.setting(row)
    return {
        "dataset": row.dataset, "split": row.split, "method": display_name(row), "ablation": row.ablation,
        "variant": row.variant, "supervision": row.supervision, "backbone": row.backbone, "decoder": row.decoder,
        "tier": row.tier,
        "protocol": row.protocol, "crf": row.inference.crf, "scales": row.inference.scales, "target": quantity.target,
        "tags": quantity.tags, "threshold_rule": setting.rule if setting else "none", "weights": row.weights,
        "study": row.study, "seeds": len(scored.evals), "iterations": max(row.iterations, default=None),
    }  # fmt: skip


__all__ = ["SCHEMA", "baseline_name", "frame", "sections"]
