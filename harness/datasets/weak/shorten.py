"""Shorter strokes, for curves of score over scribble length (sparse_baselines.md 5.2): the middle of each stays.

Coordinates are (x,y) or (y,x) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


def shorten(polyline_N2: ArrayLike, ratio: float, *, released: bool = False) -> NDArray[np.float64]:
    """The middle `ratio` (in [0,1]) of a polyline by arc length, (M,2): both cut ends and every vertex between them.

    A ratio of 0, and a line of one point or without length, give the single point in the middle; shorter strokes are
    parts of longer ones. `released` is the class of GatedCRF's code, which loses the vertex before the upper cut, an
    upper cut on the segment of the lower one, and lines of one point; a lower cut on a vertex has it twice, and a ratio
    of 1 leaves the line alone. Raises ValueError for no point or a ratio outside.
    """
    points_N2 = np.asarray(polyline_N2, np.float64)
    if points_N2.ndim != 2 or points_N2.shape[1:] != (2,) or not len(points_N2):
        raise ValueError(f"a polyline is (N,2) with N >= 1, got {points_N2.shape}")
    _check(ratio)
    at_N = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_N2, axis=0), axis=1))])
    low, high = (1.0 - ratio) * at_N[-1] / 2.0, (1.0 + ratio) * at_N[-1] / 2.0
    if released:
        return points_N2 if ratio == 1.0 else _released(points_N2, at_N, low, high)
    if len(points_N2) == 1 or low >= high:
        return _along(points_N2, at_N, [at_N[-1] / 2.0])
    between = points_N2[(at_N > low) & (at_N < high)]
    first, last = _along(points_N2, at_N, [low, high])
    return np.concatenate([first[None], between, last[None]])


def middle(path: Sequence[T], ratio: float) -> Sequence[T]:
    """The middle `ratio` (in [0,1]) of an ordered path of cells, at least one of them; those of smaller ratios lie in
    those of larger ones. Raises ValueError for an empty path or a ratio outside."""
    _check(ratio)
    if not len(path):
        raise ValueError("an empty path has no middle")
    kept = max(1, round(ratio * len(path)))
    start = (len(path) - kept) // 2
    return path[start : start + kept]


def _check(ratio: float) -> None:
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"ratio {ratio} is outside [0,1]")


def _released(
    points_N2: NDArray[np.float64], at_N: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Segment by segment, by where its ends lie: a segment gives a cut, its first vertex, or nothing."""
    kept: list[NDArray[np.float64]] = []
    for vertex, start, end in zip(points_N2, at_N, at_N[1:], strict=False):
        if start < low <= end:
            kept.append(_along(points_N2, at_N, [low])[0])
        elif low <= end <= high:
            kept.append(vertex)
        elif low <= start <= high:
            kept.append(_along(points_N2, at_N, [high])[0])
    return np.reshape(kept, (-1, 2))


def _along(points_N2: NDArray[np.float64], at_N: NDArray[np.float64], wanted: Sequence[float]) -> NDArray[np.float64]:
    return np.stack([np.interp(wanted, at_N, points_N2[:, axis]) for axis in (0, 1)], axis=1)
