"""FSR's views: the crops of fsr.md 2.1, and the other colours of its Table 5."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from methods.parts.views.colour import Colours
from methods.parts.views.crop_views import CropViews

BLUR_PROBABILITY, BLUR_RADIUS = 0.1, (0.1, 2.0)
SOLARIZE_PROBABILITY, SOLARIZE_FROM = 0.2, 128
RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
ERASE_PROBABILITY = 0.25
TRANSLATE_SHARE = 0.45
"""Longest shift of RandAugment, as timm's own training transform sets it."""


@dataclass(frozen=True)
class FsrViews(CropViews):
    """`CropViews` with one of the augmentations of Table 5: base, blur, solarize or autoaugment.

    Blur and solarise come after the colour jitter; autoaugment replaces the jitter by timm's RandAugment and erases
    at random, as timm's training transform does when it is given both.
    """

    augmentation: str = "base"

    @property
    def most_blur(self) -> float:
        """Of the augmentation blur."""
        return BLUR_RADIUS[1] if self.augmentation == "blur" else 0.0

    def recoloured(self, image_HW3: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The cropped image uint8 (crop,crop,3) in the colours of this augmentation."""
        if self.augmentation == "autoaugment":
            augment = _rand_augment(self.crop, tuple(self.mean))
            with seeded(rng):
                return np.asarray(augment(Image.fromarray(np.ascontiguousarray(image_HW3))))
        return super().recoloured(image_HW3, rng)

    def colours(self, rng: np.random.Generator) -> Colours:
        """The jitter, and blur or solarisation with their probabilities."""
        drawn = super().colours(rng)
        if self.augmentation == "blur" and rng.random() < BLUR_PROBABILITY:
            return replace(drawn, blur=float(rng.uniform(*BLUR_RADIUS)))
        if self.augmentation == "solarize" and rng.random() < SOLARIZE_PROBABILITY:
            return replace(drawn, solarise=SOLARIZE_FROM)
        return drawn

    def normalised(self, image_HW3: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        """The network's input float32 (3,crop,crop), with noise in a rectangle where it is erased."""
        view_3HW = super().normalised(image_HW3, rng)
        if self.augmentation != "autoaugment":
            return view_3HW
        with seeded(rng):
            return _erase(view_3HW)


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Run a block with the global generators, which timm draws from, seeded from `rng`; then put them back."""
    seed = int(rng.integers(2**32))
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


_erase = RandomErasing(probability=ERASE_PROBABILITY, mode="pixel", device="cpu")


@functools.lru_cache(maxsize=8)
def _rand_augment(crop: int, mean: Sequence[float]) -> RandAugment:
    fill = tuple(min(255, round(255 * m)) for m in mean)
    words = {
        "translate_const": int(crop * TRANSLATE_SHARE),
        "img_mean": fill,
        "interpolation": Image.Resampling.BICUBIC,
    }
    return rand_augment_transform(RAND_AUGMENT, words)
