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


UNTOUCHED = 256
"""A threshold of solarisation that no value reaches."""


@dataclass(frozen=True)
class Colours:
    """What is drawn of a view's colours, in the order in which it is applied; as made here nothing changes."""

    jitter: Jitter = Jitter(())
    blur: float = 0.0
    """Standard deviation, pixels."""
    solarise: int = UNTOUCHED
    """Values from here on are inverted."""


def recolour(image: Pixels, colours: Colours) -> Pixels:
    """The image in drawn colours."""
    if colours.jitter.steps:
        image = apply_jitter(image, colours.jitter)
    if colours.blur:
        image = np.asarray(_picture(image).filter(ImageFilter.GaussianBlur(colours.blur)))
    return image if colours.solarise == UNTOUCHED else solarize(image, colours.solarise)


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


def hue_shift(turns: float) -> int:
    """Turns as PIL's 8 bits of hue have them."""
    return int(turns * 255) & 255


def _shift_hue(picture: Image.Image, turns: float) -> Image.Image:
    shift = hue_shift(turns)
    if HUES.worth_it(picture.width * picture.height):
        return HUES.shift(picture, shift)
    hue, saturation, value = picture.convert("HSV").split()
    shifted = np.asarray(hue) + np.uint8(shift)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


def _contrast(picture: Image.Image, factor: float) -> Image.Image:
    """As `ImageEnhance.Contrast`: a blend with the mean luma, of which every grey level has one outcome."""
    counts = np.array(picture.convert("L").histogram(), np.float64)
    mean = int(counts @ np.arange(256.0) / counts.sum() + 0.5)
    levels = Image.frombytes("L", (256, 1), bytes(range(256)))
    table = list(Image.blend(Image.new("L", (256, 1), mean), levels, factor).tobytes())
    return picture.point(table * 3)


class HueTables:
    """PIL's own conversions to HSV and back, tabulated over all colours: equal bytes, three times as fast.

    Two tables of 64 MiB take as long to make as PIL takes for `BREAK_EVEN` pixels: they are made after that many, so
    short runs never pay for them.
    """

    BREAK_EVEN = 40_000_000

    def __init__(self) -> None:
        self._pixels = 0
        self._to_hsv: NDArray[np.uint32] | None = None
        self._to_rgb: NDArray[np.uint32] | None = None

    def worth_it(self, pixels: int) -> bool:
        """Whether so many pixels have been shifted, these included, that tables pay."""
        self._pixels += pixels
        return self._pixels > self.BREAK_EVEN

    def shift(self, picture: Image.Image, shift: int) -> Image.Image:
        """The picture with `shift` (0..255) added to its hue, modulo 256."""
        if self._to_hsv is None or self._to_rgb is None:
            self._to_hsv, self._to_rgb = self._tables()
        packed = np.frombuffer(picture.tobytes("raw", "RGBX"), np.uint32) & np.uint32(0xFFFFFF)
        hsv = np.take(self._to_hsv, packed, mode="clip")
        moved = (hsv & np.uint32(0xFFFF00)) | ((hsv + np.uint32(shift)) & np.uint32(0xFF))
        rgb = np.take(self._to_rgb, moved, mode="clip")
        return Image.frombytes("RGB", picture.size, rgb.tobytes(), "raw", "RGBX")

    @staticmethod
    def _tables() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The HSV of every RGB colour and the other way round; channels are bytes from the lowest up."""
        colours = np.arange(1 << 24, dtype=np.uint32).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        side = (1 << 12, 1 << 12)
        hsv = Image.frombytes("RGB", side, colours).convert("HSV").tobytes()
        rgb = Image.frombytes("HSV", side, colours).convert("RGB").tobytes()
        return _packed(hsv), _packed(rgb)


def _packed(channels: bytes) -> NDArray[np.uint32]:
    out = np.zeros((1 << 24, 4), np.uint8)
    out[:, :3] = np.frombuffer(channels, np.uint8).reshape(-1, 3)
    return out.view(np.uint32).ravel()


HUES = HueTables()
"""Of this process."""
_CHANGES = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": _contrast,
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "hue": _shift_hue,
}
