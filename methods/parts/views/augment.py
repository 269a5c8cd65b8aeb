"""View operations on uint8 images (H,W,3) and label maps (H,W), each drawing only from the generator it is given.

Geometry and colour are PIL's and bit-equal to torchvision's operations on PIL images; draws follow torchvision's
parameter sampling. Labels follow by nearest neighbour.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.api.vocabulary import IGNORE
from methods.parts.views.colour import (
    Jitter,
    Pixels,
    apply_jitter,
    color_jitter,
    draw_jitter,
    gaussian_blur,
    grayscale,
    solarize,
)
from methods.parts.views.warp import Warp

__all__ = [
    "Crop",
    "Jitter",
    "Pixels",
    "apply_jitter",
    "color_jitter",
    "crop_window",
    "draw_jitter",
    "gaussian_blur",
    "grayscale",
    "hflip",
    "label_tensor",
    "pad_crop",
    "random_hflip",
    "random_resized_crop",
    "random_scale",
    "resize",
    "resize_label",
    "resize_sparse_label",
    "resized_window",
    "scale_pad_crop",
    "solarize",
    "to_tensor_normalised",
]
Window = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Crop:
    """A square training crop: image, its label map, and where real pixels lie."""

    image_HW3: Pixels
    label_HW: Pixels | None
    box: Window
    """Real content inside the crop; the rest is padding."""
    content_HW: NDArray[np.bool_]
    """True inside the box."""
    warp: Warp
    """Where the crop lies in the image that it was made from."""


def resize(image: Pixels, size: tuple[int, int], how: str = "bicubic") -> Pixels:
    """Image (H,W,3) or map (H,W) at `size` = (height, width); antialiased where it shrinks, unless nearest."""
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size[1], size[0]), FILTERS[how]))


def resize_label(label: Pixels | None, size: tuple[int, int]) -> Pixels | None:
    """Label map at `size` = (height, width) by nearest neighbour; None stays None."""
    return None if label is None else resize(label, size, "nearest")


def resize_sparse_label(label: Pixels | None, size: tuple[int, int]) -> Pixels | None:
    """As `resize_label`, but every labelled pixel stays: it labels the pixel that its centre falls into.

    Nearest neighbour drops three of four clicks where an image is halved (agmm.md 6). Of several that fall into
    one pixel the last in reading order stays.
    """
    out = resize_label(label, size)
    if label is None or out is None or (label.shape[0] <= size[0] and label.shape[1] <= size[1]):
        return out
    y, x = np.nonzero(label != IGNORE)
    out = out.copy()
    out[(2 * y + 1) * size[0] // (2 * label.shape[0]), (2 * x + 1) * size[1] // (2 * label.shape[1])] = label[y, x]
    return out


def crop_window(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Window:
    """Window of RandomResizedCrop: area share from `scale`, log-uniform aspect from `ratio`.

    Ten tries, then the largest central window whose aspect lies within `ratio` (torchvision's rule).
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(
    image: Pixels,
    label: Pixels | None,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
    *,
    follow: Callable[[Pixels | None, tuple[int, int]], Pixels | None] = resize_label,
) -> tuple[Pixels, Pixels | None]:
    """A random window (`crop_window`) of image and label, resized to a square of `size` pixels, bicubic.

    `follow` resizes the label: `resize_label`, or `resize_sparse_label` where it holds single pixels.
    """
    return resized_window(image, label, crop_window(image.shape[0], image.shape[1], scale, ratio, rng), size, follow)


def resized_window(
    image: Pixels,
    label: Pixels | None,
    window: Window,
    size: int,
    follow: Callable[[Pixels | None, tuple[int, int]], Pixels | None] = resize_label,
) -> tuple[Pixels, Pixels | None]:
    """A window of image and label, resized to a square of `size` pixels, bicubic; `follow` resizes the label."""
    top, left, h, w = window
    square = (size, size)
    # Cut first: PIL's resize(box=) would let pixels from outside the window into its border.
    cut = None if label is None else label[top : top + h, left : left + w]
    return resize(image[top : top + h, left : left + w], square), follow(cut, square)


def hflip(image: Pixels, label: Pixels | None) -> tuple[Pixels, Pixels | None]:
    """Image and label mirrored left to right."""
    # PIL mirrors whole pixels; numpy would copy a mirrored view byte by byte as soon as it is used.
    mirrored = Image.fromarray(np.ascontiguousarray(image)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(mirrored), None if label is None else label[:, ::-1]


def random_hflip(
    image: Pixels, label: Pixels | None, rng: np.random.Generator, p: float = 0.5
) -> tuple[Pixels, Pixels | None]:
    """Image and label, mirrored with probability `p`."""
    return hflip(image, label) if rng.random() < p else (image, label)


def random_scale(
    image: Pixels, label: Pixels | None, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[Pixels, Pixels | None]:
    """Both sides times one factor from U(scale), rounded down, bilinear (operators A13)."""
    factor = rng.uniform(*scale)
    size = max(1, int(factor * image.shape[0])), max(1, int(factor * image.shape[1]))
    return resize(image, size, "bilinear"), resize_label(label, size)


def pad_crop(image: Pixels, label: Pixels | None, size: int, rng: np.random.Generator) -> Crop:
    """Pad to at least `size` a side at a random offset, then cut a random window of `size` (operators A13).

    Padding is 0 in RGB before normalisation, 255 in the label, and False in `content_HW`.
    """
    height, width = image.shape[:2]
    top, row = _placed(height, size, rng)
    left, column = _placed(width, size, rng)
    h0, w0 = max(top - row, 0), max(left - column, 0)
    h1, w1 = min(top + height - row, size), min(left + width - column, size)
    source = (slice(h0 + row - top, h1 + row - top), slice(w0 + column - left, w1 + column - left))
    inside = (slice(h0, h1), slice(w0, w1))
    out = np.zeros((size, size, 3), np.uint8)
    out[inside] = image[source]
    content = np.zeros((size, size), np.bool_)
    content[inside] = True
    label_out = None
    if label is not None:
        label_out = np.full((size, size), IGNORE, np.uint8)
        label_out[inside] = label[source]
    warp = Warp.whole((height, width)).cut(row - top, column - left, size, size)
    return Crop(out, label_out, (h0, w0, h1 - h0, w1 - w0), content, warp)


def scale_pad_crop(
    image: Pixels,
    label: Pixels | None,
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
) -> Crop:
    """Random scale, flip, padding and window: operators A13 without colour."""
    warp = Warp.whole((image.shape[0], image.shape[1]))
    image, label = random_scale(image, label, scale, rng)
    warp = warp.resized((image.shape[0], image.shape[1]))
    if rng.random() < flip:
        image, label = hflip(image, label)
        warp = warp.mirrored()
    crop = pad_crop(image, label, size, rng)
    # The window was cut from the image as scaled and mirrored here.
    cut = crop.warp
    return replace(crop, warp=warp.cut(round(cut.y), round(cut.x), size, size))


def to_tensor_normalised(image: Pixels, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """float32 (3,H,W): (image/255 - mean)/std per channel, bit-equal to torchvision's ToTensor and Normalize."""
    tables = _tables(tuple(mean), tuple(std))
    out = np.empty((3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.take(tables[channel], image[..., channel], out=out[channel], mode="clip")
    return torch.from_numpy(out)


def label_tensor(label: Pixels | None) -> torch.Tensor | None:
    """int64 (H,W) of a label map; None stays None."""
    return None if label is None else torch.from_numpy(label.astype(np.int64))


def _placed(length: int, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Offset of the content in the padded line, and start of the window in it."""
    padded = max(length, size)
    return int(rng.integers(0, padded - length + 1)), int(rng.integers(0, padded - size + 1))


@functools.lru_cache(maxsize=8)
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    # A channel has 256 values: looking them up costs as much as the arithmetic, without passes over the picture.
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return np.stack([(values - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)])
