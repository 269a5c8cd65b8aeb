"""Colour operations on uint8 images (H,W,3): PIL's, bit-equal to torchvision's on PIL images for the same factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Pixels = NDArray[np.uint8]
Spread = float | tuple[float, float]
"""x: factors from U(max(0, 1-x), 1+x), hue shifts from U(-x, x); or the range itself. 0 leaves the image alone."""


@dataclass(frozen=True)
class Jitter:
    """Drawn colour changes in the order in which they are applied: name and factor (hue: turns in [-.5, .5])."""

    steps: tuple[tuple[str, float], ...]


def draw_jitter(
    brightness: Spread, contrast: Spread, saturation: Spread, hue: Spread, rng: np.random.Generator
) -> Jitter:
    """Factors and order of torchvision's ColorJitter."""
    spreads = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    order = rng.permutation(len(spreads))
    factors = {
        name: float(rng.uniform(*_range(spread, 0.0 if name == "hue" else 1.0)))
        for name, spread in spreads.items()
        if spread
    }
    names = [list(spreads)[i] for i in order]
    return Jitter(tuple((name, factors[name]) for name in names if name in factors))


def apply_jitter(image: Pixels, jitter: Jitter) -> Pixels:
    """The image after every change of `jitter`, 8 bits kept between changes."""
    picture = _picture(image)
    for name, factor in jitter.steps:
        picture = _CHANGES[name](picture, factor)
    return np.asarray(picture)


def color_jitter(
    image: Pixels, brightness: Spread, contrast: Spread, saturation: Spread, hue: Spread, rng: np.random.Generator
) -> Pixels:
    """Random brightness, contrast, saturation and hue in random order."""
    return apply_jitter(image, draw_jitter(brightness, contrast, saturation, hue, rng))


def grayscale(image: Pixels) -> Pixels:
    """Luma (ITU-R 601) in all three channels."""
    return np.asarray(_picture(image).convert("L").convert("RGB"))


def gaussian_blur(image: Pixels, radius: tuple[float, float], rng: np.random.Generator) -> Pixels:
    """Blur with a standard deviation from U(radius), pixels (PIL's extended box blur)."""
    return np.asarray(_picture(image).filter(ImageFilter.GaussianBlur(float(rng.uniform(*radius)))))


def solarize(image: Pixels, threshold: int = 128) -> Pixels:
    """Values from `threshold` (0..255) on inverted."""
    return np.asarray(ImageOps.solarize(_picture(image), threshold))


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image))


def _range(spread: Spread, centre: float) -> tuple[float, float]:
    if isinstance(spread, tuple):
        return spread
    low = centre - spread
    return (max(0.0, low) if centre else low), centre + spread


def _shift_hue(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    shifted = np.asarray(hue) + np.uint8(int(turns * 255) & 255)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


_CHANGES = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "hue": _shift_hue,
}
