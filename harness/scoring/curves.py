"""Counts at every background threshold from one pass over the pixels, equal to the loop over thresholds.

The field's rule: a pixel takes the foreground class of highest score when that score is above the threshold,
else background (`score <= threshold -> background`); NaN is above every threshold, as `np.argmax` has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.scoring.confusion import Labels, as_bytes
from harness.scoring.metrics import miou_array

THRESHOLDS: NDArray[np.float64] = np.arange(100) / 100
"""The default grid. Decimal numbers here and in the store; compared after a cast to the scores' type."""

_CELLS = 8192
_SAME, _BACKGROUND, _OTHER = range(3)


def threshold_grid(*extra: float) -> NDArray[np.float64]:
    """The default grid with further thresholds (a preset's), ascending, each once."""
    return np.unique(np.concatenate([THRESHOLDS, np.asarray(extra, np.float64)]))


def threshold_index(thresholds_T: NDArray[np.float64], threshold: float) -> int:
    """Where `threshold` stands in a grid; ValueError when it is not in it."""
    found = np.flatnonzero(thresholds_T == threshold)
    if not len(found):
        raise ValueError(f"threshold {threshold} is not in the grid")
    return int(found[0])


@dataclass(frozen=True)
class ImageCurve:
    """tp, fp, fn of one image at each of T thresholds, kept for its P occurring labels only."""

    thresholds_T: NDArray[np.float64]
    num_labels: int
    labels_P: NDArray[np.intp]
    counts_PT3: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        score_HW: NDArray[np.floating],
        best_HW: Labels,
        truth_HW: Labels,
        thresholds_T: NDArray[np.float64],
        num_labels: int,
        background: int = 0,
    ) -> ImageCurve:
        """Curve of an image from each pixel's highest foreground score and the label that has it.

        `thresholds_T` ascends; it is cast to the type of the scores. Pixels with truth 255 are dropped; a
        best label of `background` is background at every threshold. Raises ValueError for labels outside
        0..K-1, shapes that differ and a grid that does not ascend.
        """
        grid_T = np.asarray(thresholds_T, np.float64)
        ascends = grid_T.ndim == 1 and len(grid_T) and np.isfinite(grid_T).all() and (np.diff(grid_T) >= 0).all()
        if not ascends:
            raise ValueError("thresholds must be finite and ascend")
        if not score_HW.shape == best_HW.shape == truth_HW.shape:
            raise ValueError(f"scores {score_HW.shape}, labels {best_HW.shape}, truth {truth_HW.shape} differ")
        if score_HW.size >= 1 << 31:
            raise ValueError("an image of 2^31 pixels or more")
        best, truth = as_bytes(best_HW, "prediction"), as_bytes(truth_HW, "truth")
        bins = threshold_bins(score_HW.reshape(-1), grid_T)
        size = len(grid_T) + 1
        pairs = (truth.astype(np.uint16) << 8) | best
        index = _pair_offsets(num_labels, background, size)[pairs]
        index += bins
        hist = np.bincount(index, minlength=(num_labels * 3 + 2) * size).reshape(-1, size)
        truth_256 = np.bincount(truth, minlength=256)
        _check(hist[-1], truth_256, best, num_labels)
        return cls._from_histogram(grid_T, hist[:-2].reshape(num_labels, 3, size), truth_256[:num_labels], background)

    @classmethod
    def _from_histogram(
        cls,
        grid_T: NDArray[np.float64],
        hist_K3B: NDArray[np.int64],
        truth_K: NDArray[np.int64],
        background: int,
    ) -> ImageCurve:
        predicted_K = hist_K3B.any((1, 2))
        labels_P = np.flatnonzero(predicted_K | (truth_K > 0) | (np.arange(len(truth_K)) == background))
        above_P3T = np.cumsum(hist_K3B[labels_P, :, ::-1], -1)[..., -2::-1]
        tp_PT = above_P3T[:, _SAME].copy()
        fp_PT = above_P3T.sum(1) - tp_PT
        kept_T = truth_K[background] - above_P3T[:, _BACKGROUND].sum(0)
        row = int(np.searchsorted(labels_P, background))
        tp_PT[row] = kept_T
        fp_PT[row] = truth_K.sum() - above_P3T.sum((0, 1)) - kept_T
        fn_PT = truth_K[labels_P, None] - tp_PT
        counts_PT3 = np.stack([tp_PT, fp_PT, fn_PT], -1).astype(np.int32)
        return cls(grid_T, len(truth_K), labels_P, counts_PT3)

    def counts(self, j: int) -> NDArray[np.int64]:
        """tp, fp, fn of each label (K,3) at the threshold of index `j`."""
        out = np.zeros((self.num_labels, 3), np.int64)
        out[self.labels_P] = self.counts_PT3[:, j]
        return out


@dataclass(frozen=True)
class Curve:
    """tp, fp, fn of a whole split at each of T thresholds."""

    thresholds_T: NDArray[np.float64]
    counts_KT3: NDArray[np.int64]

    @classmethod
    def sum(cls, curves: Iterable[ImageCurve]) -> Curve:
        """Sum over images in int64. Raises ValueError for no image and for grids or label numbers that differ."""
        total: Curve | None = None
        for curve in curves:
            if total is None:
                zeros = np.zeros((curve.num_labels, len(curve.thresholds_T), 3), np.int64)
                total = cls(curve.thresholds_T, zeros)
            same_grid = np.array_equal(total.thresholds_T, curve.thresholds_T)
            if not same_grid or len(total.counts_KT3) != curve.num_labels:
                raise ValueError("curves of different grids or numbers of labels cannot be added")
            total.counts_KT3[curve.labels_P] += curve.counts_PT3
        if total is None:
            raise ValueError("no curve to add")
        return total

    def counts(self, j: int) -> NDArray[np.int64]:
        """tp, fp, fn of each label (K,3) at the threshold of index `j`."""
        return self.counts_KT3[:, j]

    def mious(self) -> NDArray[np.float64]:
        """mIoU (T,) in [0,1] at each threshold; NaN where no class occurs."""
        return miou_array(np.swapaxes(self.counts_KT3, 0, 1))

    def best(self) -> int:
        """Index of the threshold of highest mIoU over the whole grid, the lowest of equals.

        Raises ValueError when no class occurs at any threshold.
        """
        mious = self.mious()
        if np.isnan(mious).all():
            raise ValueError("no pixel counts, so no threshold is best")
        return int(np.nanargmax(mious))


def threshold_bins(score_N: NDArray[np.floating], thresholds_T: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each score the number of thresholds strictly below it (0..T), exact at edges; T for NaN.

    A monotone map sends scores and thresholds to cells; only scores in a threshold's own cell need a comparison.
    """
    if score_N.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"scores are {score_N.dtype}, not float16, float32 or float64")
    with np.errstate(over="ignore"):
        grid_T = thresholds_T.astype(score_N.dtype)
    if score_N.dtype == np.float16:
        score_N, grid_T = score_N.astype(np.float32), grid_T.astype(np.float32)
    first, span = grid_T[0], float(grid_T[-1]) - float(grid_T[0])
    if score_N.size < _CELLS or not 1e-3 < span < 1e3:
        return np.searchsorted(grid_T, score_N, side="left")
    if np.isnan(score_N.max()):
        score_N = np.where(np.isnan(score_N), np.asarray(np.inf, score_N.dtype), score_N)
    scale = score_N.dtype.type(_CELLS / span)
    cells = _cells(score_N, first, scale)
    known, unsure = _cell_bins(grid_T, first, scale)
    bins = known[cells]
    at = np.flatnonzero(unsure[cells])
    bins[at] = np.searchsorted(grid_T, score_N[at], side="left")
    return bins


def _cells(values: NDArray[np.floating], first: np.floating, scale: np.floating) -> NDArray[np.uint16]:
    """Each value's cell. Rounding up puts exactly the values at or below `first` into cell 0."""
    x = values - first
    with np.errstate(over="ignore"):
        x *= scale
    np.ceil(x, out=x)
    np.clip(x, 0, _CELLS + 1, out=x)
    return x.astype(np.uint16)


def _cell_bins(
    grid_T: NDArray[np.floating], first: np.floating, scale: np.floating
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """For each cell the bin of its scores, and whether a threshold lies in it too, so that it may be another."""
    at_T = _cells(grid_T, first, scale).astype(np.intp)
    every = np.arange(_CELLS + 2)
    unsure = np.zeros(_CELLS + 2, np.bool_)
    unsure[at_T] = True
    unsure[0] = False
    return np.searchsorted(at_T, every, side="left"), unsure


@lru_cache(maxsize=8)
def _pair_offsets(num_labels: int, background: int, size: int) -> NDArray[np.intp]:
    """Where a pixel's histogram starts, by (truth << 8 | best).

    Per best label same, background and other truth; then pixels that are foreground nowhere; then illegal ones.
    """
    nowhere, illegal = num_labels * 3, num_labels * 3 + 1
    rows = np.full((256, 256), illegal, np.intp)
    best = np.arange(num_labels)
    rows[:num_labels, :num_labels] = best * 3 + _OTHER
    rows[background, :num_labels] = best * 3 + _BACKGROUND
    rows[best, best] = best * 3 + _SAME
    rows[IGNORE, :num_labels] = nowhere
    rows[:num_labels, background] = nowhere
    offsets = (rows * size).reshape(-1)
    offsets.setflags(write=False)
    return offsets


def _check(illegal: NDArray[np.int64], truth_256: NDArray[np.int64], best: NDArray[np.uint8], num_labels: int) -> None:
    if not illegal.any():
        return
    wrong = np.flatnonzero(truth_256[num_labels:IGNORE])
    if len(wrong):
        raise ValueError(f"truth holds label {num_labels + wrong[0]}; legal are 0..{num_labels - 1}, {IGNORE}")
    raise ValueError(f"prediction holds label {int(best.max())}; legal are 0..{num_labels - 1}")
