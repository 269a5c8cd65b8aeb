"""Intervals, paired differences and ranks from resampled seeds and images (design section 4, Scores).

A row is one config run with one or more seeds: a counts frame per seed, all over the same images. Each draw
resamples seeds with replacement, then weighs images by the Bayesian bootstrap (Rubin 1981, Dirichlet weights); the
draws depend on the image ids and on nothing of the rows, so all rows share them and a row's interval does not move
when others come or go. Images drawn with replacement would now and then lose all of a rare class, which mIoU then
leaves out: draws that lack a weak class are too high.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from harness.scoring.metrics import dice_array, iou_array, mdice_array, miou_array

Row = Sequence[pl.DataFrame]

DRAWS = 1000
LEVEL = 0.95
MEASURES = {"iou": (miou_array, iou_array), "dice": (mdice_array, dice_array)}
"""By name: the mean over classes, and the value of each, of summed counts (...,K,3)."""
_CHUNK = 1 << 22
"""Weights that are held at once."""
_NOISE = 1e-12
"""Weighted sums are rounded: differences below this are none."""


class NotPaired(ValueError):
    """Two rows, `a` and `b` of those given, were not scored on the same images against the same true pixels."""

    def __init__(self, a: int, b: int, why: str):
        super().__init__(f"rows {a} and {b}: {why}")
        self.a, self.b, self.why = a, b, why


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % percentile interval, shares of 1; NaN ends where one image gives none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First minus second row, its 95 % interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Resampled:
    """mIoU of R rows, as they are and in each of B draws; with classes also the IoU of each of K labels."""

    images: tuple[str, ...]
    value_R: NDArray[np.float64]
    draws_RB: NDArray[np.float64]
    class_value_RK: NDArray[np.float64] | None = None
    class_draws_RBK: NDArray[np.float64] | None = None

    def interval(self, row: int) -> Interval:
        """mIoU of a row."""
        return self._interval(self.value_R[row], self.draws_RB[row])

    def class_intervals(self, row: int) -> list[Interval]:
        """IoU of each label of a row; NaN for absent labels. Needs `resample(..., classes=True)`."""
        values_K, draws_BK = self._classes(row)
        return [self._interval(v, d) for v, d in zip(values_K, draws_BK.T, strict=True)]

    def difference(self, a: int, b: int) -> Difference:
        """mIoU of row `a` minus that of row `b`, paired over the draws."""
        return self._difference(self.value_R[a] - self.value_R[b], self.draws_RB[a] - self.draws_RB[b])

    def class_differences(self, a: int, b: int) -> list[Difference]:
        """IoU of each label, row `a` minus row `b`. Needs `resample(..., classes=True)`."""
        values_a, draws_a = self._classes(a)
        values_b, draws_b = self._classes(b)
        pairs = zip(values_a - values_b, (draws_a - draws_b).T, strict=True)
        return [self._difference(v, d) for v, d in pairs]

    @cached_property
    def p_RR(self) -> NDArray[np.float64]:
        """Holm-adjusted p-value of each pair of rows; 1 on the diagonal."""
        rows = len(self.value_R)
        first, second = np.triu_indices(rows, 1)
        raw = [self.difference(int(a), int(b)).p for a, b in zip(first, second, strict=True)]
        out = np.ones((rows, rows))
        out[first, second] = out[second, first] = holm(raw)
        return out

    def ranks(self, level: float = LEVEL) -> list[int]:
        """For each row 1 + the number of rows significantly better, Holm over all pairs."""
        better_RR = self.value_R[None] > self.value_R[:, None]
        return [int(n) + 1 for n in (better_RR & (self.p_RR < 1 - level)).sum(1)]

    def _classes(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.class_value_RK is None or self.class_draws_RBK is None:
            raise ValueError("resampled without classes")
        return self.class_value_RK[row], self.class_draws_RBK[row]

    def _interval(self, value: float, draws_B: NDArray[np.float64]) -> Interval:
        return Interval(float(value), *self._ends(draws_B))

    def _difference(self, value: float, draws_B: NDArray[np.float64]) -> Difference:
        p = _p_value(float(value), draws_B) if len(self.images) > 1 else 1.0
        return Difference(float(value), *self._ends(draws_B), p)

    def _ends(self, draws_B: NDArray[np.float64]) -> tuple[float, float]:
        known = draws_B[~np.isnan(draws_B)]
        if len(self.images) < 2 or not len(known):
            return math.nan, math.nan
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


def resample(
    rows: Sequence[Row], *, draws: int = DRAWS, seed: int = 0, classes: bool = False, measure: str = "iou"
) -> Resampled:
    """Resample rows together; `measure` is iou, or dice (its mean leaves label 0 out).

    Raises NotPaired for images or true pixels that differ, ValueError for a row without seeds and for broken counts.
    """
    mean_array, class_array = MEASURES[measure]
    images = _common_images(rows)
    labels = max(int(frame["class"].max()) + 1 for row in rows for frame in row)  # type: ignore[arg-type]
    counts = [[_counts(frame, images, labels) for frame in row] for row in rows]
    _check_truth(counts, images)
    root = _entropy(images, seed)
    stream = np.random.default_rng([0, *root])
    miou = [np.empty((len(row), draws)) for row in rows]
    iou = [np.empty((len(row), draws, labels)) for row in rows if classes]
    step = max(1, _CHUNK // len(images))
    for start in range(0, draws, step):
        part = slice(start, min(start + step, draws))
        weights_IB = _image_weights(stream, len(images), part.stop - start)
        for r, row in enumerate(counts):
            for s, counts_CI in enumerate(row):
                sum_BK3 = (counts_CI @ weights_IB).T.reshape(-1, labels, 3)
                miou[r][s, part] = mean_array(sum_BK3)
                if classes:
                    iou[r][s, part] = class_array(sum_BK3)
    picks = [_seed_picks(root, len(row), draws) for row in rows]
    whole = [np.stack([c.sum(1).reshape(labels, 3) for c in row]) for row in counts]
    return Resampled(
        images,
        np.array([mean_array(sum_SK3).mean() for sum_SK3 in whole]),
        np.stack([_drawn_mean(m, p) for m, p in zip(miou, picks, strict=True)]),
        np.stack([class_array(sum_SK3).mean(0) for sum_SK3 in whole]) if classes else None,
        np.stack([_drawn_mean(m, p) for m, p in zip(iou, picks, strict=True)]) if classes else None,
    )


def interval(row: Row, *, draws: int = DRAWS) -> Interval:
    """mIoU of one row with its 95 % interval. Raises as `resample`."""
    return resample([row], draws=draws).interval(0)


def difference(a: Row, b: Row, *, draws: int = DRAWS) -> Difference:
    """mIoU of row `a` minus that of row `b`, paired over seeds and images. Raises as `resample`."""
    return resample([a, b], draws=draws).difference(0, 1)


def rank(rows: Sequence[Row], *, draws: int = DRAWS) -> list[int]:
    """Rank of each row with ties: 1 + the number of rows significantly better. Raises as `resample`."""
    return resample(rows, draws=draws).ranks()


def pairable(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    """Whether two counts frames are of the same images and true pixels. Raises ValueError for broken counts."""
    try:
        images = _common_images([[a], [b]])
        labels = 1 + max(int(frame["class"].max()) for frame in (a, b))  # type: ignore[arg-type]
        _check_truth([[_counts(a, images, labels)], [_counts(b, images, labels)]], images)
    except NotPaired:
        return False
    return True


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment of p-values (N,): comparing the result with alpha controls the familywise error."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (len(p) - np.arange(len(p)))
    out = np.empty_like(p)
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out


def _p_value(value: float, draws_B: NDArray[np.float64]) -> float:
    """Two-sided p-value of a paired difference: twice the smaller share of draws on one side of zero.

    Where no draw crosses zero that share is only known to be below 1/(B+1), too coarse for Holm over many pairs:
    the tail is then taken from the normal distribution of the draws' standard deviation.
    """
    known = draws_B[~np.isnan(draws_B)]
    if not len(known) or math.isnan(value) or abs(value) < _NOISE:
        return 1.0
    crossing = int(min((known <= 0).sum(), (known >= 0).sum()))
    share = min(1.0, 2 * (crossing + 1) / (len(known) + 1))
    spread = float(known.std())
    if crossing or spread < _NOISE:
        return share
    return min(share, math.erfc(abs(value) / spread / math.sqrt(2)))


def _common_images(rows: Sequence[Row]) -> tuple[str, ...]:
    if not rows or not all(len(row) for row in rows):
        raise ValueError("every row needs the counts of at least one seed")
    images = rows[0][0]["image"].unique().sort()
    if not len(images):
        raise ValueError("counts without images")
    for r, frame in ((r, frame) for r, row in enumerate(rows) for frame in row):
        others = frame["image"].unique().sort()
        if not others.equals(images):
            odd = sorted(set(others) ^ set(images))
            raise NotPaired(0, r, f"they are scored on different images: {len(odd)} differ, first {odd[0]!r}")
    return tuple(images.to_list())


def _counts(frame: pl.DataFrame, images: tuple[str, ...], labels: int) -> csr_array:
    """Counts (3K,I) of one seed, by class tp, fp, fn; sparse, as an image shows few of many classes."""
    index = pl.DataFrame({"image": images, "at": np.arange(len(images))})
    at = frame.select("image").join(index, on="image", how="left", maintain_order="left")["at"].to_numpy()
    first = 3 * frame["class"].to_numpy().astype(np.int64)
    if len(np.unique(first * len(images) + at)) < len(at):
        raise ValueError("counts hold an image and class twice: more than one eval")
    values = [frame[name].to_numpy().astype(np.float64) for name in ("tp", "fp", "fn")]
    where = np.concatenate([first + n for n in range(3)]), np.tile(at, 3)
    return csr_array((np.concatenate(values), where), shape=(3 * labels, len(images)))


def _check_truth(counts: Sequence[Sequence[csr_array]], images: tuple[str, ...]) -> None:
    """True pixels, tp + fn of each image and class, are the data's and not the row's."""
    first = counts[0][0][0::3] + counts[0][0][2::3]
    for r, row in enumerate(counts):
        for counts_CI in row:
            odd = (counts_CI[0::3] + counts_CI[2::3] - first).tocoo()
            wrong = np.flatnonzero(odd.data)
            if len(wrong):
                image, label = images[odd.col[wrong[0]]], int(odd.row[wrong[0]])
                raise NotPaired(0, r, f"they differ in the true pixels of class {label} of image {image!r}")


def _entropy(images: tuple[str, ...], seed: int) -> list[int]:
    digest = hashlib.sha256("\n".join([str(seed), *images]).encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


def _image_weights(stream: np.random.Generator, images: int, draws: int) -> NDArray[np.float64]:
    """Weight of each image in each draw (I,B). Not divided by their sum, as Dirichlet's are: scores are ratios."""
    return np.ascontiguousarray(stream.standard_exponential((draws, images)).T)


def _seed_picks(root: list[int], seeds: int, draws: int) -> NDArray[np.intp]:
    """Which seeds are in each draw (B,S). The s-th pick of all rows comes from one stream, so equal S share picks."""
    picks = [np.random.default_rng([1, s, *root]).random(draws) * seeds for s in range(seeds)]
    return np.stack(picks, 1).astype(np.intp)


def _drawn_mean(values_SB: NDArray[np.float64], pick_BS: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean over the picked seeds: (S,B,...) and (B,S) to (B,...)."""
    draws = np.arange(len(pick_BS))[:, None]
    return np.asarray(values_SB[pick_BS, draws].mean(1))
