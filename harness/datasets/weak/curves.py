"""Scribbles as smooth curves through a piece, for the sensitivity of methods to the style of a hand.

Axes: H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.datasets.weak.strokes import Mask, Pixel, depths

KNOTS = 4
"""Points that a curve runs through."""
DEEPEST = 8
"""Pixels from the border beyond which a place is no likelier to be a knot."""


def curve(pixels_HW: Mask, rng: np.random.Generator) -> list[Pixel]:
    """A smooth curve through random places of a mask, by preference deep inside: its longest run of cells (y,x) inside.

    Knots are ordered along the mask's main axis, so that the curve does not double back. [] for no pixel.
    """
    places_n2 = np.argwhere(pixels_HW)
    if not len(places_n2):
        return []
    chance_n = (depths(pixels_HW, DEEPEST)[pixels_HW] ** 2).astype(np.float64)
    count = min(KNOTS, len(places_n2))
    chosen = rng.choice(len(places_n2), count, replace=False, p=chance_n / chance_n.sum())
    knots_k2 = places_n2[chosen].astype(np.float64)
    axis_2 = np.linalg.eigh(np.cov(places_n2.T) if len(places_n2) > 1 else np.eye(2))[1][:, -1]
    knots_k2 = knots_k2[np.argsort(knots_k2 @ axis_2, kind="stable")]
    return _longest_inside(_drawn(knots_k2), pixels_HW)


def _drawn(knots_k2: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cells of a spline through the knots, each once in a row, neighbours without gaps."""
    apart = np.linalg.norm(np.diff(knots_k2, axis=0), axis=1)
    at_k = np.concatenate([[0.0], np.cumsum(apart)])
    if len(knots_k2) < 2:
        return np.rint(knots_k2).astype(np.int64)
    # Only scribbles of this style need it; it takes a quarter of a plan's imports.
    from scipy.interpolate import make_interp_spline

    spline = make_interp_spline(at_k, knots_k2, k=min(3, len(knots_k2) - 1))
    # The curve between two knots is longer than their distance, but not four times as long.
    cells_n2 = np.rint(spline(np.linspace(0.0, at_k[-1], 1 + int(np.ceil(4 * at_k[-1]))))).astype(np.int64)
    return cells_n2[np.concatenate([[True], (np.diff(cells_n2, axis=0) != 0).any(1)])]


def _longest_inside(cells_n2: NDArray[np.int64], pixels_HW: Mask) -> list[Pixel]:
    h, w = pixels_HW.shape
    y, x = cells_n2.T
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    inside[inside] = pixels_HW[y[inside], x[inside]]
    ends = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    first, last = max(zip(ends[::2], ends[1::2], strict=True), key=lambda run: int(run[1] - run[0]))
    return [(int(a), int(b)) for a, b in cells_n2[first:last]]
