"""The strong photometric view of weak-to-strong consistency: blur and RandAugment without geometry (fsae.md 2.1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms.v2 import functional as tv

from methods.parts.views.colour import Pixels

VERSION = 1

FACTOR = (0.05, 0.95)
"""Of brightness, colour, contrast and sharpness: all darken, fade, flatten or soften."""
BITS = (4, 8)
THRESHOLD = (0, 256)
BLUR_SIGMA = (0.1, 2.0)
BLUR_KERNELS = (1, 3, 5)
"""Sides in pixels; 1 leaves the image alone."""

Operation = Callable[[Image.Image, np.random.Generator], Image.Image]


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, rng: kind(picture).enhance(float(rng.uniform(*FACTOR)))


OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda picture, rng: ImageOps.autocontrast(picture),
    "brightness": _enhance(ImageEnhance.Brightness),
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "equalise": lambda picture, rng: ImageOps.equalize(picture),
    "identity": lambda picture, rng: picture,
    "posterise": lambda picture, rng: ImageOps.posterize(picture, int(rng.integers(BITS[0], BITS[1] + 1))),
    "solarise": lambda picture, rng: ImageOps.solarize(picture, int(rng.integers(THRESHOLD[0], THRESHOLD[1] + 1))),
}
"""The nine operations of the card; each draws its own strength."""


def strong_view(image_HW3: Pixels, rng: np.random.Generator, *, n: int = 5, blur: bool = True) -> Pixels:
    """The image uint8 (H,W,3) with Gaussian blur and then `n` operations drawn with replacement (fsae.md 2.1).

    Blur: deviation from U(.1,2) pixels on a kernel of 1, 3 or 5. No pixel moves. With `n` 0 and no blur it is the image
    itself. Raises ValueError for a negative `n`.
    """
    if n < 0:
        raise ValueError(f"n {n}: a number of operations, 0 or more")
    if blur:
        image_HW3 = _blurred(image_HW3, int(rng.choice(BLUR_KERNELS)), float(rng.uniform(*BLUR_SIGMA)))
    if n == 0:
        return image_HW3
    picture = Image.fromarray(np.ascontiguousarray(image_HW3))
    names = list(OPERATIONS)
    for index in rng.integers(0, len(names), n):
        picture = OPERATIONS[names[index]](picture, rng)
    return np.asarray(picture)


def _blurred(image_HW3: Pixels, side: int, sigma: float) -> Pixels:
    # Reflection needs more pixels than half a kernel.
    if side == 1 or min(image_HW3.shape[:2]) <= side // 2:
        return image_HW3
    planes_3HW = torch.from_numpy(np.ascontiguousarray(image_HW3.transpose(2, 0, 1)))
    blurred_3HW = tv.gaussian_blur(planes_3HW, [side, side], [sigma, sigma])
    return np.ascontiguousarray(blurred_3HW.numpy().transpose(1, 2, 0))
