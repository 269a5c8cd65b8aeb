"""Shorter strokes where they are known as pixels alone (sparse_baselines.md 5.2, PNG only).

Axes: H W pixels.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.datasets.weak.drawn import STROKE
from harness.datasets.weak.shorten import middle
from harness.datasets.weak.strokes import longest_path, thin


def shortened(label_HW: NDArray[np.uint8], ratio: float, width: int = STROKE) -> NDArray[np.uint8]:
    """The labels of scribbles with the middle `ratio` of each piece: per label and 8-connected piece the pixels within
    half the stroke's `width` and a half of the kept part of its skeleton's longest path.

    A piece whose skeleton is a single cell stays; no piece goes. Shorter ones are parts of longer ones.
    """
    out = np.full_like(label_HW, IGNORE)
    for label in np.flatnonzero(np.bincount(label_HW.ravel(), minlength=256)[:IGNORE]).tolist():
        parts_HW, _ = scipy.ndimage.label(label_HW == label, np.ones((3, 3), bool))
        for number, box in enumerate(scipy.ndimage.find_objects(parts_HW), 1):
            piece = parts_HW[box] == number
            path = longest_path(thin(piece))
            if len(path) > 1:
                kept = np.ones(piece.shape, bool)
                y, x = np.array(middle(path, ratio)).T
                kept[y, x] = False
                piece &= scipy.ndimage.distance_transform_edt(kept) <= width / 2 + 0.5
            out[box][piece] = label
    return out
