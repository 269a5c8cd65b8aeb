"""Sparse labels of a photo, derived from its mask: a pure function of mask, image id, kind and seed."""

from __future__ import annotations

import hashlib

import numpy as np
import scipy  # its parts only once they are used: every command imports this file
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE, LABELS
from harness.datasets.weak import CLICKS, KINDS
from harness.datasets.weak.curves import curve
from harness.datasets.weak.scribbling import WHOLE, Scribbling
from harness.datasets.weak.strokes import BLOCK_SHARE, Instance, blocks, clicks, points, scribbles
from harness.errors import BadInput, Problem, nearest

VERSIONS = {"scribbles": 2}
"""By kind, 1 where none is given; raised when a derived label of the kind moves: it is part of the key of every run
that learns from one."""
STROKE = 3
"""Width of scribbles and diameter of points in pixels, as the field rasterises both (agmm.md 7)."""
SMALLEST = 1e-3
"""Share of the image below which a piece gets no label of its own, unless it is the largest of its class."""
GRID = 96
"""Middle lines of longer pieces are found on a grid of about this many cells, the size of `shapes`."""
BACKGROUND_POINTS = 2
"""On label 0 where it is a background: the field's point sets mostly have two an image (agmm.md 7)."""


def version(kind: str) -> int:
    """The version of what is derived of a kind."""
    return VERSIONS.get(kind, 1)


def check_derivable(kind: str) -> None:
    """Raises BadInput for a kind that is not made from masks: coarse outlines are read where a dataset has them."""
    if kind not in KINDS and not CLICKS.fullmatch(kind):
        found = f"no weak labels are called {kind!r}" if kind not in LABELS else f"{kind} are not derived from masks"
        raise BadInput(Problem("labels", found, nearest(kind, (*KINDS, "masks"))))


def pieces(mask_HW: NDArray[np.uint8], has_background: bool) -> list[Instance]:
    """The connected pieces (8 neighbours) of every class, class by class in reading order.

    Pieces below `SMALLEST` of the image are left out, but for the largest one of each class.
    """
    least = SMALLEST * mask_HW.size
    found: list[Instance] = []
    for label in np.flatnonzero(np.bincount(mask_HW.ravel(), minlength=256)[:IGNORE]).tolist():
        if label == 0 and has_background:
            continue
        parts_HW, count = scipy.ndimage.label(mask_HW == label, np.ones((3, 3), bool))
        sizes = np.bincount(parts_HW.ravel(), minlength=count + 1)[1:]
        boxes = scipy.ndimage.find_objects(parts_HW)
        for i in np.flatnonzero((sizes >= least) | (np.arange(count) == sizes.argmax())).tolist():
            found.append(Instance(label, boxes[i], parts_HW[boxes[i]] == i + 1))
    return found


def derive(
    mask_HW: NDArray[np.uint8],
    kind: str,
    image_id: str,
    *,
    has_background: bool,
    seed: int = 0,
    how: Scribbling = WHOLE,
) -> NDArray[np.uint8]:
    """Sparse labels (H,W) of `kind`, 255 = unlabelled; what they name is what the mask holds there.

    points: a dot of 3 pixels in every piece (`pieces`), 2 on the background. scribbles: a stroke 3 pixels wide
    along every piece, 2 on the background. clicks<n>: n pixels drawn uniformly. blocks: a tenth of a 10x10 grid.
    `how` says which share of a stroke is drawn and in which style. Raises BadInput for an unknown kind.
    """
    check_derivable(kind)
    number = CLICKS.fullmatch(kind)
    rng = _generator(kind, image_id, seed)
    if number:
        return clicks(mask_HW, int(number[1]), rng)
    if kind == "blocks":
        return blocks(mask_HW, BLOCK_SHARE, rng)
    found = pieces(mask_HW, has_background)
    if kind == "points":
        deepest = max(4, round(4 * min(mask_HW.shape) / GRID))
        dots = BACKGROUND_POINTS if has_background else 0
        return points(mask_HW, found, rng, deepest=deepest, diameter=STROKE, background=dots)
    return scribbles(
        mask_HW,
        found,
        rng,
        width=STROKE,
        largest=GRID,
        background=2 if has_background else 0,
        length=how.length,
        curve=curve if how.style == "curve" else None,
    )


def _generator(kind: str, image_id: str, seed: int) -> np.random.Generator:
    words = np.frombuffer(hashlib.blake2b(f"{kind}:{image_id}".encode(), digest_size=16).digest(), np.uint32)
    return np.random.Generator(np.random.PCG64([seed, *words.tolist()]))
