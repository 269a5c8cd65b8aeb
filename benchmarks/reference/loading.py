"""A training batch as the field loads it: PIL, torchvision transforms one after another, numpy labels, torch.stack.

Mirrors the loaders of FSR and of most single-stage repositories (RandomResizedCrop bicubic, flip, ColorJitter at p .5,
ToTensor, Normalize). Only the random numbers come from the caller, so that both sides can be compared byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from methods.parts.knobs import ViewKnobs
from methods.parts.views.augment import crop_window
from methods.parts.views.colour import draw_jitter
from methods.parts.views.crop_views import CROP_AREA_MAX, CROP_ASPECT

_ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def read(path: Path) -> Image.Image:
    """An image as the field opens it."""
    return Image.open(path).convert("RGB")


def view(
    image: Image.Image,
    mask: np.ndarray | None,
    crop: int,
    k: ViewKnobs,
    mean: Sequence[float],
    std: Sequence[float],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor | None]:
    """One training view float32 (3,crop,crop) and its labels int64 (crop,crop), where there is a mask."""
    label = None if mask is None else Image.fromarray(mask)
    window = crop_window(image.height, image.width, (k.crop_area_min, CROP_AREA_MAX), CROP_ASPECT, rng)
    square = [crop, crop]
    image = F.resize(F.crop(image, *window), square, InterpolationMode.BICUBIC)
    label = None if label is None else F.resize(F.crop(label, *window), square, InterpolationMode.NEAREST)
    if rng.random() < k.flip_probability:
        image, label = F.hflip(image), None if label is None else F.hflip(label)
    if rng.random() < k.jitter_probability:
        spread = (k.jitter_brightness, k.jitter_contrast, k.jitter_saturation, k.jitter_hue)
        for name, factor in draw_jitter(*spread, rng).steps:
            image = _ADJUST[name](image, factor)
    tensor = F.normalize(F.to_tensor(image), list(mean), list(std))
    return tensor, None if label is None else torch.from_numpy(np.array(label)).long()


def batch(
    images: Sequence[Path],
    masks: Sequence[Path],
    views: int,
    crop: int,
    k: ViewKnobs,
    mean: Sequence[float],
    std: Sequence[float],
    rngs: Sequence[np.random.Generator],
) -> list[Tensor]:
    """Views (B,3,crop,crop) and, last, the labels (B,crop,crop) of the first one; every file is opened anew."""
    made: list[list[Tensor]] = []
    for path, mask_path, rng in zip(images, masks, rngs, strict=True):
        image, mask = read(path), np.array(Image.open(mask_path))
        first, label = view(image, mask, crop, k, mean, std, rng)
        others = [view(image, None, crop, k, mean, std, rng)[0] for _ in range(views - 1)]
        assert label is not None
        made.append([first, *others, label])
    return [torch.stack(parts) for parts in zip(*made, strict=True)]
