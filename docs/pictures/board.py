"""The picture of README.md:  python docs/pictures/board.py results docs/pictures/board.png

Scores with intervals, and what the methods make of the same images, from a store of `shapes` with pictures
(`python -m reports.page store=results pictures=true` adds them).
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from harness.evaluation.picture_files import IMAGE, TRUTH, picture_path
from reports.format.table import Score
from reports.page.build import view_of
from reports.page.charts.style import GREY, PALETTE
from reports.page.examples import Shown, shown
from reports.page.view import View
from reports.rows.row import Filters, Row

SHOWN = ("best", "largest spread")
"""Which of the page's examples."""
INK, WIDTH, DPI = "#1b1f24", 11.0, 120


def draw(store: Path, out: Path) -> None:
    """Write the picture. Raises FileNotFoundError for a picture that the store lacks."""
    view = view_of(store, Filters())
    some = shown(view)[0]
    found = _best_last(view, some)
    rows = [row for row, _ in found[::-1]]
    examples = [e for e in some.examples if e.why in SHOWN]
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.edgecolor": GREY,
                         "xtick.color": INK, "ytick.color": INK})  # fmt: skip
    height = 0.6 + 0.26 * len(rows) + WIDTH * len(examples) / (len(rows) + 2)
    figure = plt.figure(figsize=(WIDTH, height), facecolor="white")
    top, bottom = figure.subfigures(2, 1, height_ratios=[0.6 + 0.26 * len(rows), height - 0.6 - 0.26 * len(rows)])
    room = {"left": 0.12, "right": 0.98, "top": 0.97, "bottom": 0.5 / (0.6 + 0.26 * len(rows))}
    _scores(top.subplots(gridspec_kw=room), found)
    grid = {"left": 0.01, "right": 0.99, "top": 0.93, "bottom": 0.01, "wspace": 0.04, "hspace": 0.04}
    places = bottom.subplots(len(examples), len(rows) + 2, squeeze=False, gridspec_kw=grid)
    for n, example in enumerate(examples):
        _strip(places[n], store, some, rows, example.image, titled=n == 0)
    figure.savefig(out, dpi=DPI, metadata={"Software": None})


def _best_last(view: View, some: Shown) -> list[tuple[Row, Score]]:
    """The rows that are shown, with their scores."""
    main = some.quantities[-1]
    found = [(row, scores[main]) for b in view.boards for row, scores in zip(b.group.rows, b.scores, strict=True)
             if main in scores and row in some.rows]  # fmt: skip
    return sorted(found, key=lambda one: one[1].value)


def _scores(place: Axes, found: list[tuple[Row, Score]]) -> None:
    """A dot and a line for each row, best at the top, in the colour of its labels."""
    kinds = list(dict.fromkeys(row.supervision for row, _ in found[::-1]))
    for n, (row, cell) in enumerate(found):
        colour = PALETTE[kinds.index(row.supervision) % len(PALETTE)]
        place.plot([cell.low, cell.high], [n, n], color=colour, linewidth=1.6, solid_capstyle="round")
        place.plot([cell.value], [n], "o", color=colour, markersize=5)
        place.annotate(
            f"{cell.value:.1f}", (cell.high, n), (6, 0), textcoords="offset points", va="center", color=colour
        )
    place.set_yticks(range(len(found)), [row.title for row, _ in found])
    place.set_xlabel("segmentation mIoU in %, 95 % interval over seeds and images")
    place.set_xlim(left=0)
    place.set_ylim(-0.6, len(found) - 0.4)
    for n, kind in enumerate(kinds):
        place.plot([], [], "o-", color=PALETTE[n % len(PALETTE)], label=kind, markersize=5)
    place.legend(frameon=False, loc="lower right", title="labels")
    place.spines[["top", "right", "left"]].set_visible(False)
    place.tick_params(axis="y", length=0)


def _strip(places: list[Axes], store: Path, some: Shown, rows: list[Row], image: str, *, titled: bool) -> None:
    """Photo, truth and each row's segmentation of an image."""
    common = {what: next(p for r in some.rows if (p := store / picture_path(r.keys[0], what, image)).is_file())
              for what in (IMAGE, TRUTH)}  # fmt: skip
    named = [*common.items(), *((r.title, store / picture_path(r.keys[0], "segmentation", image)) for r in rows)]
    for place, (title, path) in zip(places, named, strict=True):
        with Image.open(path) as picture:
            place.imshow(picture.convert("RGB"))
        place.set_axis_off()
        if titled:
            place.set_title(title, fontsize=9)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
