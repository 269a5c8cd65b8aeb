"""A2: pixel-adaptive refinement, which spreads scores along the image's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

VERSION = 1

DILATIONS = (1, 2, 4, 8, 12, 24)
GROWTH = 1.01
"""Sum of a pixel's weights: constant scores grow by this factor per iteration."""

_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def neighbours(dilations: Sequence[int] = DILATIONS) -> tuple[tuple[int, int], ...]:
    """Offsets (dy,dx) in pixels of the 8 neighbours at every dilation, dilation-major, centre excluded."""
    return tuple((dy * d, dx * d) for d in dilations for dy, dx in _DIRECTIONS)


def position_weights(dilations: Sequence[int] = DILATIONS, w1: float = 0.3) -> list[float]:
    """Softmax over the neighbours of -(distance / std of distances / w1)^2; sums to 1 (A2.4)."""
    distances = [math.hypot(dy, dx) for dy, dx in neighbours(dilations)]
    mean = sum(distances) / len(distances)
    std = math.sqrt(sum((r - mean) ** 2 for r in distances) / (len(distances) - 1))
    powers = [math.exp(-((r / (std + 1e-8) / w1) ** 2)) for r in distances]
    return [p / sum(powers) for p in powers]


def _pad(maps: Tensor, reach: int) -> Tensor:
    """Replicate padding clamps indices, so one pad by the largest dilation serves every dilation."""
    return F.pad(maps, (reach, reach, reach, reach), mode="replicate")


def _check(image_B3HW: Tensor, dilations: Sequence[int]) -> None:
    if image_B3HW.ndim != 4 or image_B3HW.shape[1] != 3:
        raise ValueError(f"image is (B,3,H,W) in [0,1], not {tuple(image_B3HW.shape)}")
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations are whole numbers >= 1, not {tuple(dilations)}")


@torch.no_grad()
def par_weights(
    image_B3HW: Tensor, dilations: Sequence[int] = DILATIONS, w1: float = 0.3, w2: float = 0.01
) -> Tensor:
    """Weight of every neighbour (order of `neighbours`), float32 (B,neighbours,H,W), sum 1 + w2 (A2.3-5).

    `image_B3HW` in [0,1]; only ratios of colour differences count. Raises ValueError for other shapes.
    """
    _check(image_B3HW, dilations)
    image = image_B3HW.float()
    batch, _, height, width = image.shape
    offsets, reach = neighbours(dilations), max(dilations)
    padded = _pad(image, reach)
    count = len(offsets)

    def difference(offset: tuple[int, int]) -> Tensor:
        y, x = reach + offset[0], reach + offset[1]
        return padded[:, :, y : y + height, x : x + width] - image

    total = torch.zeros_like(image)
    squares = torch.zeros_like(image)
    for offset in offsets:
        delta = difference(offset)
        total.add_(delta)
        squares.addcmul_(delta, delta)
    # Unbiased variance of the neighbours; differences from the centre keep the sums small.
    std = squares.addcmul_(total, total, value=-1.0 / count).div_(count - 1).clamp_(min=0.0).sqrt_()
    scale = std.add_(1e-8).mul_(w1).square_().mul_(-3.0).reciprocal_()
    weights = image.new_empty(batch, count, height, width)
    for n, offset in enumerate(offsets):
        torch.sum(difference(offset).square_().mul_(scale), dim=1, out=weights[:, n])
    weights = weights.softmax(dim=1)
    return weights.add_(image.new_tensor(position_weights(dilations, w1)).mul_(w2).view(-1, 1, 1))


@torch.no_grad()
def par(
    image_B3HW: Tensor,
    scores_BKhw: Tensor,
    iterations: int = 10,
    dilations: Sequence[int] = DILATIONS,
) -> Tensor:
    """Scores (B,K,H,W) after `iterations` weighted sums over each pixel's neighbours, float32 (A2).

    `image_B3HW` in [0,1]. Scores of another size are first resized with aligned corners. Linear in the scores
    and separate per channel; constant scores grow by 1.01 per iteration. Raises ValueError for bad shapes.
    """
    _check(image_B3HW, dilations)
    height, width = image_B3HW.shape[-2:]
    scores = scores_BKhw.float()
    if scores.shape[-2:] != image_B3HW.shape[-2:]:
        scores = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=True)
    weights = par_weights(image_B3HW, dilations)
    offsets, reach = neighbours(dilations), max(dilations)
    for _ in range(iterations):
        padded = _pad(scores, reach)
        scores = torch.zeros_like(scores)
        for n, (dy, dx) in enumerate(offsets):
            y, x = reach + dy, reach + dx
            scores.addcmul_(weights[:, n : n + 1], padded[:, :, y : y + height, x : x + width])
    return scores
