"""Rows of sparse labels by how much is labelled: who learned from what, in settings that differ in nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.datasets.weak.density import read_text
from harness.datasets.weak.scribbling import OPTIONS, parse_scribbling
from harness.scoring.intervals import Difference, Interval
from harness.scoring.metrics import all_background
from harness.store import Results
from reports.rows.comparing import counts_of
from reports.rows.ranking import Counts, Quantity, images_of, resampled
from reports.rows.row import USUAL_TAGS, Filters, Row
from reports.rows.rows import rows_of

MASKS = "masks"
SEGMENTATION = Quantity("segmentation", USUAL_TAGS["segmentation"])


@dataclass(frozen=True)
class Point:
    """A row, how much of its training pixels is labelled, and its mIoU; shares of 1."""

    row: Row
    name: str
    """Method and ablation, and what tells it from rows of the same labels that look the same."""
    share: float
    marks: float
    """Marks an image."""
    score: Interval
    step: Difference | None
    """Minus the point of the same method and kind with the next lower share."""
    gap: Difference | None
    """Full supervision minus this."""

    @property
    def labels(self) -> str:
        """Kind of labels, and how scribbles were drawn where not as usual."""
        return _labels(self.row)

    @property
    def series(self) -> tuple[str, str]:
        """Method and kind, whatever the number of clicks or the length of scribbles: what a line joins."""
        style = parse_scribbling({"scribble_style": dict(self.row.data.options).get("scribble_style", "skeleton")})
        return self.name, " ".join(part for part in (self.row.supervision.rstrip("0123456789"), style.text) if part)


@dataclass(frozen=True)
class Setting:
    """Points that differ in method and labels alone, by share; the best row on masks, and the baseline beside it."""

    points: tuple[Point, ...]
    images: int
    full: tuple[Row, Interval] | None
    baseline: Interval

    @property
    def head(self) -> Row:
        """A row whose common fields speak for all."""
        return self.points[0].row


def settings_of(results: Results, filters: Filters) -> list[Setting]:
    """The settings in which rows of sparse labels were scored as segmentation and say how much is labelled.

    Raises StoreError where counts of such a row are missing.
    """
    rows = [r for r in rows_of(results, filters) if SEGMENTATION.setting(r) is not None]
    found = counts_of(results, [r.scores[s] for r in rows if (s := SEGMENTATION.setting(r)) is not None])
    sparse: dict[tuple[object, ...], list[Row]] = {}
    masks: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.supervision == MASKS:
            masks.setdefault(_likeness(row, found), []).append(row)
        elif read_text(row.data.density):
            sparse.setdefault(_likeness(row, found), []).append(row)
    return [_setting(alike, masks.get(key, []), found) for key, alike in sparse.items()]


def _setting(rows: Sequence[Row], masks: Sequence[Row], counts: Counts) -> Setting:
    every = [*rows, *masks]
    scored = [r.scores[s] for r in every if (s := SEGMENTATION.setting(r)) is not None]
    baseline = all_background(counts[scored[0].evals[0]], has_background=rows[0].has_background)
    drawn = resampled(scored, counts, extra=[baseline])
    best = max(range(len(rows), len(every)), key=lambda n: drawn.interval(n).value, default=None)
    looks = Counter(_look(row) for row in rows)
    points: list[Point] = []
    last: dict[tuple[str, str], int] = {}
    for n in sorted(range(len(rows)), key=lambda n: _density(rows[n])):
        name = _look(rows[n])[0] if looks[_look(rows[n])] == 1 else rows[n].title
        gap = None if best is None else drawn.difference(best, n)
        point = Point(rows[n], name, *_density(rows[n]), drawn.interval(n), None, gap)
        before = last.get(point.series)
        points.append(point if before is None else replace(point, step=drawn.difference(n, before)))
        last[point.series] = n
    full = None if best is None else (every[best], drawn.interval(best))
    return Setting(tuple(points), len(drawn.images), full, drawn.interval(len(every)))


def _density(row: Row) -> tuple[float, float]:
    found = read_text(row.data.density)
    assert found is not None
    return found


def _likeness(row: Row, counts: Counts) -> tuple[object, ...]:
    """What points of one setting share: data, scoring and sizes; not the labels, nor how scribbles are drawn."""
    data = row.data
    options = tuple(pair for pair in data.options if pair[0] not in (*OPTIONS, "weak"))
    return (row.dataset, row.split, row.variant, row.tier, row.protocol, row.inference, row.trials, row.weights,
            row.backbone, row.decoder, row.iterations, data.train, data.report, data.images, options,
            images_of(row, counts))  # fmt: skip


def _labels(row: Row) -> str:
    drawn = parse_scribbling({name: text for name, text in row.data.options if name in OPTIONS}).text
    return " ".join(part for part in (row.supervision, drawn) if part)


def _look(row: Row) -> tuple[str, str]:
    return f"{row.method} ({row.ablation})" if row.ablation else row.method, _labels(row)
