"""mIoU against the hours that it cost, and where those hours went."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from harness.store.rows import phase_seconds, stage_seconds
from reports.format.html import Block
from reports.format.table import Score
from reports.page.charts.style import GREY, PALETTE, Trace, chart, plain
from reports.page.view import View, quantities_of, quantity_name, same_images
from reports.rows.ranking import Board, Quantity
from reports.rows.row import Row

Box: TypeAlias = tuple[float, float, float, float]
"""Left, low, right, high."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")
LABELLED = 14
"""With more points than this names would cover each other: then they are read by pointing."""
FAR = 20.0
"""Between costs that differ by more than this factor the axis is logarithmic."""
STAGES = {
    "method": ("method", PALETTE[0]), "views": ("views", PALETTE[1]), "data": ("loading", PALETTE[4]),
    "engine": ("engine", PALETTE[5]), "stages": ("other stages", PALETTE[7]), "score": ("scoring", PALETTE[2]),
    "checkpoint": ("checkpoints", PALETTE[6]), "start": ("start", PALETTE[8]), "build": ("build", PALETTE[3]),
    "store": ("writing", PALETTE[9]), "unfinished": ("stopped runs", GREY),
}  # fmt: skip
"""What the phases of a run are called on the page, and their colours."""
TRAINING = ("method", "views", "data", "engine", "checkpoint")
"""Phases of a training stage."""
AROUND = {"scoring": ("scoring", PALETTE[9]), "other": ("start, build, stopped runs", GREY)}
"""What lies around the stages of a recipe."""
PLACES = {"middle right": (1, 0), "middle left": (-1, 0), "top center": (0, 1), "bottom center": (0, -1)}
"""Where a name may stand beside its point."""


def score_against_hours(view: View) -> list[Block]:
    """One chart for each target of rows that were scored on the same images, whatever their labels."""
    blocks: list[Block] = []
    for boards in same_images(view.boards):
        for quantity in quantities_of(boards):
            points = [
                (row, scores[quantity]) for b in boards for row, scores in zip(b.group.rows, b.scores, strict=True)
                if quantity in scores and row.gpu_hours + row.core_hours > 0
            ]  # fmt: skip
            if len(points) > 1:
                blocks.append(_scatter(view, boards[0], quantity, points))
    return blocks


def stages(view: View) -> list[Block]:
    """Stacked bars: the hours of every study by phase, its failed and pruned runs included; where recipes have several
    stages, also by stage."""
    blocks: list[Block] = []
    for boards in same_images(view.boards):
        rows = [row for b in boards for row in b.group.rows]
        phases = [_hours(row, view, phase_seconds) for row in rows]
        by_stage = [_hours(row, view, _by_stage) for row in rows]
        head = boards[0].group.head
        title = f"{head.dataset} · {head.split} · {head.tier}"
        names = [n for n in STAGES if any(s.get(n, 0.0) > 0 for s in phases)]
        names += sorted({n for s in phases for n in s} - set(STAGES))
        looks = {name: STAGES.get(name, (name, GREY)) for name in names}
        if names:
            blocks.append(_bars(view, title, rows, phases, looks))
        named = list(dict.fromkeys(n for s in by_stage for n in s if n not in AROUND))
        if len(named) > 1:
            looks = {name: (name, PALETTE[n % len(PALETTE)]) for n, name in enumerate(named)}
            looks |= {name: colour for name, colour in AROUND.items() if any(name in s for s in by_stage)}
            blocks.append(_bars(view, f"By stage · {title}", rows, by_stage, looks))
    return blocks


def _bars(view: View, title: str, rows: Sequence[Row], spent: Sequence[Mapping[str, float]],
          looks: Mapping[str, tuple[str, str]]) -> Block:  # fmt: skip
    """A bar for each row, cheapest first; `looks`: what the parts are called, and their colours."""
    order = sorted(range(len(rows)), key=lambda i: sum(spent[i].values()))
    labels = [plain(f"{view.name(rows[i])} · {rows[i].supervision}") for i in order]
    data: list[Trace] = [
        {"type": "bar", "orientation": "h", "name": plain(name), "y": list(range(len(order))),
         "x": [spent[i].get(part, 0.0) for i in order], "marker": {"color": colour},
         "hovertemplate": "%{fullData.name}: %{x:.3f} h<extra></extra>"}
        for part, (name, colour) in looks.items()
    ]  # fmt: skip
    layout = {"barmode": "stack", "bargap": 0.35,
              "yaxis": {"tickvals": list(range(len(order))), "ticktext": labels, "showgrid": False}}  # fmt: skip
    return chart(
        title, data, x="hours of device or cores", layout=layout, height=150 + 26 * len(order),
        caption="every run of the study, trials and failures too; pointing at a bar says how long it took",
    )  # fmt: skip


def _scatter(view: View, board: Board, quantity: Quantity, points: Sequence[tuple[Row, Score]]) -> Block:
    named = len(points) <= LABELLED
    kinds = list(dict.fromkeys(row.supervision for row, _ in points))
    data: list[Trace] = []
    places = _places([(row.gpu_hours or row.core_hours, cell.value, view.name(row)) for row, cell in points])
    for (row, cell), place in zip(points, places, strict=True):
        value, low, high = cell.value, cell.low, cell.high
        unit = "GPU-h" if row.gpu_hours else "core-h"
        data.append({
            "type": "scatter", "mode": "markers+text" if named else "markers", "showlegend": False,
            "x": [row.gpu_hours or row.core_hours], "y": [value], "name": plain(view.name(row)),
            "text": [plain(view.name(row))], "textposition": place, "textfont": {"size": 11},
            "error_y": {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low],
                        "thickness": 1, "width": 0, "color": view.lines[view.name(row)]["color"]},
            "marker": {"size": 9, "color": view.lines[view.name(row)]["color"],
                       "symbol": SYMBOLS[kinds.index(row.supervision) % len(SYMBOLS)]},
            "hovertemplate": f"<b>%{{fullData.name}}</b> · {plain(row.supervision)} · {plain(row.protocol)}"
                             f"<br>%{{y:.1f}} % for %{{x:.3g}} {unit}<extra></extra>",
        })  # fmt: skip
    if len(kinds) > 1:
        data += [{"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": plain(kind),
                  "marker": {"size": 9, "color": GREY, "symbol": SYMBOLS[n % len(SYMBOLS)]}}
                 for n, kind in enumerate(kinds)]  # fmt: skip
    hours = [row.gpu_hours or row.core_hours for row, _ in points]
    axis = {"type": "log"} if max(hours) > FAR * min(hours) else {"rangemode": "tozero"}
    head = board.group.head
    return chart(
        f"{quantity_name(quantity)} · {head.dataset} · {head.split} · {head.tier}", data,
        x="hours of the whole study", y="mIoU in %", layout={"xaxis": axis}, metric=quantity.id, height=430,
        caption="bars are 95 % intervals; hours count every run of the study, on its devices or cores",
    )  # fmt: skip


def _places(points: Sequence[tuple[float, float, str]]) -> list[str]:
    """For each point (hours, score, name) the first place where its name covers neither a point nor another name.

    Sizes are shares of a chart 1,000 x 330 pixels large with letters of 7 x 14.
    """
    far = max(x for x, _, _ in points) > FAR * min(x for x, _, _ in points)
    xs = [math.log(x) if far else x for x, _, _ in points]
    ys = [y for _, y, _ in points]
    left, low = min(xs) if far else 0.0, min(ys)
    at = [(1000 * (x - left) / ((max(xs) - left) or 1), 330 * (y - low) / ((max(ys) - low) or 1))
          for x, y in zip(xs, ys, strict=True)]  # fmt: skip
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    taken.append((1000, -100, 2000, 500))  # beyond the right end names are cut off
    out = []
    for (x, y), (_, _, name) in zip(at, points, strict=True):
        boxes = {place: _box(x, y, 7 * len(name), place) for place in PLACES}
        out.append(next((p for p, box in boxes.items() if not any(_meet(box, t) for t in taken)), "top center"))
        taken.append(boxes[out[-1]])
    return out


def _box(x: float, y: float, width: float, place: str) -> Box:
    right, up = PLACES[place]
    middle = x + right * (width / 2 + 8)
    return middle - width / 2, y + 13 * up - 7, middle + width / 2, y + 13 * up + 7


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _by_stage(run: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a run by stage; one stage trains where a recipe has no others. Scoring and the rest lie around."""
    phases = phase_seconds(run)
    stages = stage_seconds(run) or {"train": sum(phases.get(name, 0.0) for name in TRAINING)}
    scoring = phases.get("score", 0.0)
    rest = sum(phases.values()) - sum(stages.values()) - scoring
    return {name: value for name, value in (*stages.items(), ("scoring", scoring), ("other", rest)) if value > 0}


def _hours(row: Row, view: View, seconds_of: Callable[[Mapping[str, Any]], Mapping[str, float]]) -> dict[str, float]:
    """Hours of a study by part: of its devices, or of its cores where it had none."""
    hours: dict[str, float] = {}
    for run in (view.runs[k] for k in row.spent if k in view.runs):
        each = (run["world_size"] or 1) * (1 if (run["gpu_seconds"] or 0.0) > 0 else run["threads"] or 1)
        for name, seconds in seconds_of(run).items():
            hours[name] = hours.get(name, 0.0) + seconds * each / 3600
    return hours
