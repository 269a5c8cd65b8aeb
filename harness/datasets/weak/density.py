"""How dense sparse labels are: the share of pixels that bear one, and the marks on an image.

Axes: H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE

LOOKED_AT = 100
"""Training images, evenly spaced, whose labels are looked at."""


def density(labels: Iterable[NDArray[np.uint8]]) -> tuple[float, float]:
    """Share of labelled pixels over all maps (H,W), and marks a map: 8-connected pieces of one label; 0 for no map."""
    pixels = labelled = marks = maps = 0
    for label_HW in labels:
        maps += 1
        pixels += label_HW.size
        counts = np.bincount(label_HW.ravel(), minlength=256)[:IGNORE]
        labelled += int(counts.sum())
        marks += sum(scipy.ndimage.label(label_HW == v, np.ones((3, 3), bool))[1] for v in np.flatnonzero(counts))
    return labelled / max(1, pixels), marks / max(1, maps)


def density_text(dataset: Dataset, ids: Sequence[str], kind: str) -> str:
    """Of up to `LOOKED_AT` of these images, as tables have it: `2.31 % of pixels, 4.2 marks an image`; of pseudo masks,
    which are no marks, the first alone."""
    chosen = dict.fromkeys(ids[i] for i in np.linspace(0, len(ids) - 1, min(LOOKED_AT, len(ids))).astype(int))
    share, marks = density(dataset.weak(image_id, kind) for image_id in chosen)
    return f"{100 * share:.2f} % of pixels" if kind == "pseudo" else text_of(share, marks)


def text_of(share: float, marks: float) -> str:
    """Share of labelled pixels in [0,1] and marks an image, as runs record them."""
    percent = f"{100 * share:.2f}" if share >= 1e-3 else f"{100 * share:.2g}"
    return f"{percent} % of pixels, {marks:.1f} marks an image"


def read_text(text: str) -> tuple[float, float] | None:
    """Share of labelled pixels in [0,1] and marks an image of such a text; None for another one."""
    found = re.fullmatch(r"([\d.e-]+) % of pixels, ([\d.]+) marks an image", text)
    return (float(found[1]) / 100, float(found[2])) if found else None
