"""IoU of every class as a heat map, classes in the dataset's order."""

from __future__ import annotations

import polars as pl

from reports.format.html import Block
from reports.page.charts.style import chart, plain
from reports.page.view import View, quantities_of, quantity_name, same_images
from reports.rows.ranking import Quantity
from reports.rows.row import Row, Scored

VALUES_SHOWN = 400
"""Cells of a map up to which each says its value."""


def heat_maps(view: View) -> list[Block]:
    """A map for each target of rows that were scored on the same images: the mean over seeds of each class, in %."""
    blocks: list[Block] = []
    for boards in same_images(view.boards):
        for quantity in quantities_of(boards):
            rows = [
                (r, r.scores[s]) for b in boards for r in b.group.rows if (s := quantity.setting(r)) is not None
            ]  # fmt: skip
            blocks.append(_heat_map(view, quantity, rows))
    return blocks


def _heat_map(view: View, quantity: Quantity, rows: list[tuple[Row, Scored]]) -> Block:
    values = [_means(view, scored.evals) for _, scored in rows]
    names = max((r.class_names for r, _ in rows), key=len, default=())
    count = max([len(names), *(max(v, default=-1) + 1 for v in values)])
    labels = [plain(names[k] if k < len(names) else k) for k in range(count)]
    titles = [plain(name) for name in view.names(row for row, _ in rows)]
    cells = [[100 * v[k] if k in v else None for k in range(count)] for v in values]
    heat = {
        "type": "heatmap", "z": cells, "x": list(range(count)), "y": list(range(len(rows))), "zmin": 0, "zmax": 100,
        "colorscale": "Viridis", "xgap": 1, "ygap": 1, "hoverongaps": False,
        "customdata": [[[title, label] for label in labels] for title in titles],
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}: %{z:.1f}<extra></extra>",
        "colorbar": {"title": {"text": "IoU"}, "thickness": 10, "outlinewidth": 0},
    }  # fmt: skip
    if len(rows) * count <= VALUES_SHOWN:
        heat |= {"texttemplate": "%{z:.0f}", "textfont": {"size": 10}}
    layout = {
        "xaxis": {"tickvals": list(range(count)), "ticktext": labels, "tickangle": -40, "showgrid": False},
        "yaxis": {"tickvals": list(range(len(rows))), "ticktext": titles, "autorange": "reversed", "showgrid": False},
    }
    head = rows[0][0]
    title = f"{quantity_name(quantity)} · {head.dataset} · {head.split} · {head.tier}"
    return chart(title, [heat], layout=layout, metric=quantity.id, height=130 + 28 * len(rows))


def _means(view: View, evals: tuple[str, ...]) -> dict[int, float]:
    """IoU by class, mean over those evals (seeds) in which the class occurs."""
    mine = view.classes.filter(pl.col("eval").is_in(evals))
    return dict(mine.group_by("class").agg(pl.col("iou").mean()).iter_rows())
