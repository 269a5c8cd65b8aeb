"""One eval beside all else in a store: its score, its classes, and its paired difference to every other row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from harness.scoring.intervals import Resampled, holm, pairable
from harness.store import Results
from reports.format.render import render
from reports.format.table import Cell, Column, Section, Table, p_value
from reports.rows.comparing import counts_of, inference_text, score_cell
from reports.rows.ranking import Quantity, resampled
from reports.rows.row import Filters, Row, Scored
from reports.rows.rows import rows_of
from reports.sections.board import display_name, quantity_title


def beside(results: Results, eval_id: str, *, width: int | None = None) -> str:
    """One eval as text: mIoU with interval, IoU by class, and its paired difference to every other row of the store
    that was scored on the same images. Raises StoreError for an eval without counts."""
    found = results.evals.row(by_predicate=pl.col("eval") == eval_id, named=True)
    run = next(r for r in results.runs.to_dicts() if r["key"] == found["key"])
    rows = rows_of(results, Filters(dataset=run["dataset"], weights=found["weights"], split=found["split"]))
    quantity = Quantity(found["target"], found["tags"])
    mine = Scored((eval_id,), (), found["images"], f"eval {eval_id}")
    others = [(r, r.scores[s]) for r in rows if (s := quantity.setting(r)) is not None]
    others = [(r, s) for r, s in others if eval_id not in s.evals]
    counts = counts_of(results, [mine, *(s for _, s in others)])
    if eval_id in counts:
        others = [
            (r, s) for r, s in others if all(e in counts and pairable(counts[eval_id], counts[e]) for e in s.evals)
        ]
    drawn = resampled([mine, *(s for _, s in others)], counts, classes=True)
    names = next((r.class_names for r in rows if found["key"] in r.keys), ())
    sections = [_classes(found, run, quantity, drawn, names)]
    if others:
        sections.append(_differences(str(run["method"]), [r for r, _ in others], drawn))
    return render(Table(f"Eval {eval_id}", tuple(sections)), "terminal", width=width)


def _classes(
    found: Mapping[str, Any], run: Mapping[str, Any], quantity: Quantity, drawn: Resampled, names: Sequence[str]
) -> Section:
    columns = (Column("class", "class", right=True), Column("name", "name"), Column("iou", "IoU", right=True))
    lines: list[dict[str, Cell]] = [
        {"class": k, "name": names[k] if k < len(names) else str(k), "iou": score_cell(value)}
        for k, value in enumerate(drawn.class_intervals(0))
        if not math.isnan(value.value)
    ]
    threshold, rule = found["threshold"], found["threshold_rule"]
    head = [run["method"], quantity_title(quantity), run["dataset"], found["split"]]
    head += [f"CRF {found['crf']}"] * (found["crf"] != "none")
    head += [] if threshold is None else [f"threshold {threshold:.2f} ({rule})"]
    heading = " · ".join([*head, f"mIoU {score_cell(drawn.interval(0))}"])
    return Section(heading, columns, tuple(lines), caption=f"{found['images']} images")


def _differences(name: str, rows: Sequence[Row], drawn: Resampled) -> Section:
    gaps = [drawn.difference(0, n + 1) for n in range(len(rows))]
    adjusted = holm([g.p for g in gaps])
    columns = (
        Column("method", "row"), Column("supervision", "supervision"), Column("protocol", "protocol"),
        Column("inference", "scored at"), Column("score", "mIoU", right=True),
        Column("difference", "difference", f"{name} − row", right=True, measure="difference"),
        Column("p", "p", right=True),
    )  # fmt: skip
    lines: list[dict[str, Cell]] = [
        {"method": display_name(row), "supervision": row.labels, "protocol": row.protocol,
         "inference": inference_text(row), "score": score_cell(drawn.interval(n + 1)),
         "difference": score_cell(gaps[n]),
         "p": p_value(float(adjusted[n]))}
        for n, row in enumerate(rows)
    ]  # fmt: skip
    note = "paired on the same images, 95 % intervals, p adjusted by Holm; tier, variant and budget may differ"
    few = "this is one run: intervals and p hold other images, not other seeds"
    return Section("Beside other rows of the store", columns, tuple(lines), notes=(note, few))
