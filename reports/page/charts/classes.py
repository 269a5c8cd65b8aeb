"""IoU of every class as a heat map, classes in the dataset's order."""

from __future__ import annotations

import polars as pl

from reports.format.html import Block
from reports.page.charts.style import chart, plain
from reports.page.view import View, board_name, quantity_name

VALUES_SHOWN = 320
"""Cells of a map up to which each says its value."""


def heat_maps(view: View) -> list[Block]:
    """A map for each board and target: rows best first, the mean over seeds of each class, in %."""
    blocks: list[Block] = []
    for board in view.boards:
        for quantity in board.quantities:
            rows = [(r, r.scores[s]) for r in board.group.rows if (s := quantity.setting(r)) is not None]
            values = [_means(view, scored.evals) for _, scored in rows]
            names = max((r.class_names for r, _ in rows), key=len, default=())
            count = max([len(names), *(max(v, default=-1) + 1 for v in values)])
            labels = [plain(names[k] if k < len(names) else k) for k in range(count)]
            cells = [[100 * v[k] if k in v else None for k in range(count)] for v in values]
            shown = len(rows) * count <= VALUES_SHOWN
            heat = {
                "type": "heatmap", "z": cells, "x": list(range(count)), "y": list(range(len(rows))), "zmin": 0,
                "zmax": 100, "colorscale": "Viridis", "xgap": 1, "ygap": 1, "hoverongaps": False,
                "customdata": [[[plain(r.title), label] for label in labels] for r, _ in rows],
                "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}: %{z:.1f}<extra></extra>",
                "colorbar": {"title": {"text": "IoU"}, "thickness": 10, "outlinewidth": 0},
                **({"texttemplate": "%{z:.0f}", "textfont": {"size": 10}} if shown else {}),
            }  # fmt: skip
            titles = [plain(r.title) for r, _ in rows]
            layout = {
                "xaxis": {"tickvals": list(range(count)), "ticktext": labels, "tickangle": -40, "showgrid": False},
                "yaxis": {"tickvals": list(range(len(rows))), "ticktext": titles, "autorange": "reversed",
                          "showgrid": False},
            }  # fmt: skip
            title = f"{quantity_name(quantity)} · {board_name(board)}"
            blocks.append(chart(title, [heat], layout=layout, metric=quantity.id, height=130 + 28 * len(rows)))
    return blocks


def _means(view: View, evals: tuple[str, ...]) -> dict[int, float]:
    """IoU by class, mean over those evals (seeds) in which the class occurs."""
    mine = view.classes.filter(pl.col("eval").is_in(evals))
    return dict(mine.group_by("class").agg(pl.col("iou").mean()).iter_rows())
