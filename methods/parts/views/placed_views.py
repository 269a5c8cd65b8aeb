"""Training views of IRN's recipes: an image scaled as a whole and placed at random on a square, or cut to it
(irn.md 2.1, 2.5, sipe.md 2.1). What is not image is 0 after normalisation, the mean colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, from_numpy

from harness.api.dataset import Sample
from harness.api.method import Views
from methods.parts.views.augment import (
    Pixels,
    hflip,
    label_tensor,
    pad_crop,
    resize,
    resize_label,
    to_tensor_normalised,
)
from methods.parts.views.warp import Warp

VERSION = 1
"""Raised when a view comes out differently."""


@dataclass(frozen=True, kw_only=True)
class PlacedViews:
    """One view `view1` of `crop` pixels: long side drawn from [low, high] times the crop, mirrored with probability
    `flip`; content is marked. The label of an image, where it has one, follows in full size, and what travels with the
    image at the size `extra` (h,w), 0 or 255 outside the image; None: nothing of it."""

    crop: int
    low: float = 320 / 512
    high: float = 640 / 512
    flip: float = 0.5
    mean: Sequence[float]
    std: Sequence[float]
    extra: tuple[int, int] | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The view float32 (3,crop,crop), label int64 (crop,crop) with 255 outside the image, and where it is."""
        longest = max(sample.image_HW3.shape[:2])
        target = int(rng.integers(round(self.low * self.crop), round(self.high * self.crop) + 1))
        return _placed(sample, target / longest, self, rng, extra=self.extra)


@dataclass(frozen=True, kw_only=True)
class ScaledViews:
    """One view `view1` of `crop` pixels: both sides times a factor from [low, high], mirrored with probability `flip`.

    The label is 1/`coarse` of the crop, nearest.
    """

    crop: int
    low: float = 0.5
    high: float = 1.5
    flip: float = 0.5
    coarse: int = 4
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The view float32 (3,crop,crop) and its label int64 (crop/coarse,crop/coarse), 255 outside the image."""
        return _placed(sample, rng.uniform(self.low, self.high), self, rng, self.coarse)


def _placed(
    sample: Sample,
    factor: float,
    how: PlacedViews | ScaledViews,
    rng: np.random.Generator,
    coarse: int = 1,
    extra: tuple[int, int] | None = None,
) -> Views:
    height, width = sample.image_HW3.shape[:2]
    size = max(1, round(height * factor)), max(1, round(width * factor))
    image: Pixels = resize(sample.image_HW3, size)
    label = resize_label(sample.label_HW, size)
    warp = Warp.whole((height, width)).resized(size)
    if rng.random() < how.flip:
        image, label, warp = *hflip(image, label), warp.mirrored()
    crop = pad_crop(image, label, how.crop, rng)
    cut = crop.warp  # of the image as scaled and mirrored here
    content_HW = from_numpy(crop.content_HW)
    view: Tensor = to_tensor_normalised(crop.image_HW3, how.mean, how.std).mul_(content_HW)
    side = -(-how.crop // coarse)
    small = resize_label(crop.label_HW, (side, side))
    found = {} if extra is None else warp.cut(round(cut.y), round(cut.x), *cut.size)(sample.extra, extra)
    return Views({"view1": view}, label_tensor(small), content_HW, found)
