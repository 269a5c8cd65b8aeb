"""A1: how inputs are normalised, and from normalised inputs back to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.parts.tensors import constant

VERSION = 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A normalised pixel comes back a few 1e-5 below its level; truncation must not cost it the level.
_ROUND_OFF = 1e-3


def normalisation_of(
    mean: tuple[float, ...], std: tuple[float, ...], *, imagenet: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels in [0,1] that inputs have: the network's own, or ImageNet's (A1)."""
    return (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (mean, std)


@torch.no_grad()
def denormalise(images_B3HW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels 0..255 of normalised images, truncated to whole levels as uint8 would, kept as float32 (A1).

    `images_B3HW` is (x/255 - mean)/std with `mean` and `std` of pixels in [0,1]; returns (B,3,H,W).
    """
    images = images_B3HW.float()
    mean_311 = constant(tuple(mean), images).view(3, 1, 1)
    std_311 = constant(tuple(std), images).view(3, 1, 1)
    return (images * (std_311 * 255.0)).add_(mean_311 * 255.0 + _ROUND_OFF).floor_().clamp_(0.0, 255.0)
