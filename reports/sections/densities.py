"""mIoU over how much is labelled, as tables and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from reports.format.table import Cell, Column, Section, Table
from reports.rows.comparing import score_cell
from reports.rows.densities import Point, Setting
from reports.sections.board import baseline_name, display_name, one_seed

TITLE = "mIoU in % over labelled pixels, 95 % intervals (seeds, then images, resampled)"
COLUMNS = (
    Column("method", "method"),
    Column("labels", "labels"),
    Column("pixels", "pixels", "% labelled", right=True),
    Column("marks", "marks", "an image", right=True, spare=1),
    Column("score", "mIoU", right=True),
    Column("step", "more − fewer", "points", right=True, measure="difference"),
    Column("gap", "masks − row", "points", right=True, measure="difference"),
    Column("seeds", "seeds", right=True),
)
NOTES = (
    "more − fewer: minus the same method's row of the same kind with the next lower share; differences are paired",
    "rows of unlike labels are not ranked",
)
FORMATS = ("png", "svg", "pdf")
APART = 1.03
"""Factor between the places of neighbouring methods, so that intervals do not hide each other."""


def table(settings: Sequence[Setting]) -> Table:
    """A section for each setting."""
    notes = NOTES if settings else ("no finished run on sparse labels that says how much they label",)
    return Table(TITLE, tuple(_section(s) for s in settings), notes)


def picture(settings: Sequence[Setting], form: str) -> bytes:
    """A panel for each setting: a mark with its interval for each row, a line through each kind of labels of a method.
    A setting of a single density has no panel where another has several.

    `form` is one of `FORMATS`; equal settings give equal bytes.
    """
    import matplotlib as mpl  # a second that tables do not need

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "densities"
    from matplotlib import pyplot as plt

    settings = [s for s in settings if len({p.labels for p in s.points}) > 1] or settings
    methods = sorted({p.name for s in settings for p in s.points})
    size = (5.2 * len(settings), 3.8)
    figure, axes = plt.subplots(1, len(settings), figsize=size, squeeze=False, layout="constrained")
    for axis, setting in zip(axes[0], settings, strict=True):
        _draw(axis, setting, methods)
    handles = {t: h for a in axes[0] for h, t in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=150, metadata={"png": {"Software": None}, "svg": {"Date": None}}.get(form, {
        "CreationDate": None}))  # fmt: skip
    plt.close(figure)
    return out.getvalue()


def _section(setting: Setting) -> Section:
    head, points = setting.head, sorted(setting.points, key=lambda p: (p.name, p.share))
    caption = f"{setting.images} images; {baseline_name(head)} {score_cell(setting.baseline)}"
    if setting.full is not None:
        caption += f"; {display_name(setting.full[0])} on masks {score_cell(setting.full[1])}"
    rows = [p.row for p in points] + ([setting.full[0]] if setting.full else [])
    facts = {"dataset": head.dataset, "split": head.split, "tier": head.tier, "protocol": head.protocol}
    return Section(_heading(setting), COLUMNS, tuple(map(_line, points)), facts, caption, one_seed(rows))


def _line(point: Point) -> dict[str, Cell]:
    return {
        "method": point.name, "labels": point.labels, "pixels": f"{100 * point.share:.2g}",
        "marks": f"{point.marks:.1f}", "score": score_cell(point.score),
        "step": None if point.step is None else score_cell(point.step),
        "gap": None if point.gap is None else score_cell(point.gap), "seeds": len(point.row.seeds),
    }  # fmt: skip


def _heading(setting: Setting) -> str:
    head = setting.head
    sizes = "-".join(map(str, head.iterations))
    return (f"{head.dataset} · {head.split} · {head.backbone}, {head.decoder} · {sizes} iterations · "
            f"tier {head.tier} · protocol {head.protocol}")  # fmt: skip


def _draw(axis: object, setting: Setting, methods: Sequence[str]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    for number, method in enumerate(methods):
        mine = [p for p in setting.points if p.name == method]
        colour = f"C{number}"
        for series in dict.fromkeys(p.series for p in mine):
            line = [p for p in mine if p.series == series]
            x = np.array([100 * p.share for p in line]) * APART ** (number - (len(methods) - 1) / 2)
            value, low, high = (100 * np.array([getattr(p.score, f) for p in line]) for f in ("value", "low", "high"))
            axis.errorbar(
                x, value, yerr=np.nan_to_num(np.stack([value - low, high - value])), color=colour, marker="o",
                markersize=3.5, linewidth=1, elinewidth=0.8, label=method,
            )  # fmt: skip
    axis.set_xscale("log")
    if setting.full is not None:
        row, score = setting.full
        axis.axhline(100 * score.value, color="0.3", linestyle="--", linewidth=0.9, label=f"{display_name(row)}, masks")
        if score.low == score.low:
            axis.axhspan(100 * score.low, 100 * score.high, color="0.3", alpha=0.12, linewidth=0)
    axis.xaxis.set_major_formatter("{x:g}")
    # One name for each kind: runs of other versions wrote the same share with fewer digits.
    for labels, share in {p.labels: p.share for p in setting.points}.items():
        axis.annotate(
            labels, (100 * share, 1.0), (-2, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
            rotation=30, rotation_mode="anchor", fontsize=6, color="0.35", annotation_clip=False,
        )  # fmt: skip
    axis.set_xlabel("labelled pixels of the training images, %", fontsize=8)
    axis.set_ylabel("mIoU, %", fontsize=8)
    axis.tick_params(labelsize=7)
    head = setting.head
    axis.set_title(
        f"{head.dataset}, {head.split}, {len(head.seeds)} seed{'s' * (len(head.seeds) > 1)}", fontsize=9, pad=30
    )
