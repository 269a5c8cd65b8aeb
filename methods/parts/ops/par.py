"""A2: pixel-adaptive refinement, which spreads scores along the image's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.tensors import constant

VERSION = 1

DILATIONS = (1, 2, 4, 8, 12, 24)
GROWTH = 1.01
"""Sum of a pixel's weights: constant scores grow by this factor per iteration."""

# Numbers per operation on the CPU: strips of this size measured fastest (accumulator stays in cache).
_STRIP = 1_000_000

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


def _fill(padded: Tensor, maps: Tensor, reach: int) -> Tensor:
    """Writes `maps` (n,H,W,B) into `padded` (n,H+2 reach,W+2 reach,B), border replicated.

    Replicating clamps indices, so one border as wide as the largest dilation serves every dilation.
    """
    height, width = maps.shape[1:3]
    middle = padded[:, reach : reach + height]
    middle[:, :, reach : reach + width] = maps
    middle[:, :, :reach] = maps[:, :, :1]
    middle[:, :, reach + width :] = maps[:, :, -1:]
    padded[:, :reach] = middle[:, :1]
    padded[:, reach + height :] = middle[:, -1:]
    return padded


def _bordered(maps: Tensor, reach: int) -> Tensor:
    n, height, width, batch = maps.shape
    return maps.new_empty(n, height + 2 * reach, width + 2 * reach, batch)


def _weights(image_3HWB: Tensor, dilations: Sequence[int], w1: float, w2: float) -> Tensor:
    """`par_weights` with images innermost: rows of W*B numbers keep small images as fast as large ones."""
    image, reach = image_3HWB, max(dilations)
    height, width = image.shape[1:3]
    padded = _fill(_bordered(image, reach), image, reach)
    views = [
        padded[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in neighbours(dilations)
    ]
    count, delta = len(views), torch.empty_like(image)
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for view in views:
        torch.sub(view, image, out=delta)
        total.add_(delta)
        squares.addcmul_(delta, delta)
    # Unbiased variance of the neighbours; differences from the centre keep the sums small.
    variance = squares.addcmul_(total, total, value=-1.0 / count).div_(count - 1).clamp_(min=0.0)
    scale = variance.sqrt_().add_(1e-8).mul_(w1).square_().mul_(-3.0).reciprocal_()

    weights_NHWB = image.new_empty(count, *image.shape[1:])
    largest = torch.full_like(weights_NHWB[0], -torch.inf)
    for view, weight in zip(views, weights_NHWB, strict=True):
        torch.sub(view, image, out=delta)
        delta.square_().mul_(scale)
        torch.add(delta[0], delta[1], out=weight).add_(delta[2])
        torch.maximum(largest, weight, out=largest)
    total_HWB = torch.zeros_like(largest)
    for weight in weights_NHWB:
        total_HWB.add_(weight.sub_(largest).exp_())
    share_HWB = total_HWB.reciprocal_()
    for weight, position in zip(weights_NHWB, position_weights(dilations, w1), strict=True):
        weight.mul_(share_HWB).add_(w2 * position)
    return weights_NHWB


def _iterate(weights_NHWB: Tensor, scores_KHWB: Tensor, iterations: int, dilations: Sequence[int]) -> Tensor:
    """Weighted sums over neighbour views of one bordered copy, strip by strip."""
    reach, (labels, height, width, batch) = max(dilations), scores_KHWB.shape
    padded, out = _bordered(scores_KHWB, reach), torch.empty_like(scores_KHWB)
    rows = height
    if scores_KHWB.device.type == "cpu":
        rows = max(1, min(height, _STRIP // max(1, labels * width * batch)))
    strips = []
    for top in range(0, height, rows):
        end = min(height, top + rows)
        terms = [
            (weight[top:end], padded[:, reach + dy + top : reach + dy + end, reach + dx : reach + dx + width])
            for weight, (dy, dx) in zip(weights_NHWB, neighbours(dilations), strict=True)
        ]
        strips.append((out[:, top:end], terms))
    current = scores_KHWB
    for _ in range(iterations):
        _fill(padded, current, reach)
        for sums, terms in strips:
            torch.mul(*terms[0], out=sums)
            for weight, view in terms[1:]:
                sums.addcmul_(weight, view)
        current = out
    return current


def _rings(maps_BKHW: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """For each dilation a view (B,K,3,3,H,W) of every pixel's square of neighbours, itself in the middle, border
    replicated."""
    reach, (height, width) = max(dilations), maps_BKHW.shape[2:]
    padded = F.pad(maps_BKHW, (reach,) * 4, mode="replicate")
    for d in dilations:
        rows, columns = slice(reach - d, reach + d + height), slice(reach - d, reach + d + width)
        yield padded[:, :, rows, columns].unfold(2, height, d).unfold(3, width, d)


def _ring_weights(image_B3HW: Tensor, dilations: Sequence[int], w1: float, w2: float) -> Tensor:
    """`par_weights` as squares of neighbours (B,dilations,3,3,H,W), 0 in the middle."""
    centre, count = image_B3HW[:, :, None, None], 8 * len(dilations)
    total, squares = torch.zeros_like(image_B3HW), torch.zeros_like(image_B3HW)
    for ring in _rings(image_B3HW, dilations):
        delta = ring - centre
        total += delta.sum((2, 3))
        squares += delta.square_().sum((2, 3))
    variance = squares.addcmul_(total, total, value=-1.0 / count).div_(count - 1).clamp_(min=0.0)
    scale = variance.sqrt_().add_(1e-8).mul_(w1).square_().mul_(-3.0).reciprocal_()[:, :, None, None]
    rings = [(ring - centre).square_().mul_(scale).sum(1) for ring in _rings(image_B3HW, dilations)]
    weights = torch.stack(rings, dim=1)
    weights[:, :, 1, 1] = -torch.inf
    weights = weights.flatten(1, 3).softmax(dim=1)
    shares = iter(position_weights(dilations, w1))
    places = tuple(0.0 if i % 9 == 4 else w2 * next(shares) for i in range(9 * len(dilations)))
    return weights.add_(constant(places, weights)[:, None, None]).unflatten(1, (len(dilations), 3, 3))


def _ring_iterate(weights: Tensor, scores_BKHW: Tensor, iterations: int, dilations: Sequence[int]) -> Tensor:
    for _ in range(iterations):
        rings = zip(_rings(scores_BKHW, dilations), weights.unbind(1), strict=True)
        scores_BKHW = torch.stack([(ring * weight[:, None]).sum((2, 3)) for ring, weight in rings]).sum(0)
    return scores_BKHW


def rings_par(image_B3HW: Tensor, scores_BKHW: Tensor, iterations: int, dilations: Sequence[int]) -> Tensor:
    """`par` of float32 images and scores of one size by few operations on much memory, as suits a GPU: all neighbours
    at a dilation at once."""
    return _ring_iterate(_ring_weights(image_B3HW, dilations, 0.3, 0.01), scores_BKHW, iterations, dilations)


def _check(image_B3HW: Tensor, dilations: Sequence[int]) -> None:
    if image_B3HW.ndim != 4 or image_B3HW.shape[1] != 3:
        raise ValueError(f"image is (B,3,H,W) in [0,1], not {tuple(image_B3HW.shape)}")
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations are whole numbers >= 1, not {tuple(dilations)}")


@torch.no_grad()
def par_weights(image_B3HW: Tensor, dilations: Sequence[int] = DILATIONS, w1: float = 0.3, w2: float = 0.01) -> Tensor:
    """Weight of every neighbour (order of `neighbours`), float32 (B,neighbours,H,W), sum 1 + w2 (A2.3-5).

    `image_B3HW` in [0,1]; only ratios of colour differences count. Raises ValueError for other shapes.
    """
    _check(image_B3HW, dilations)
    image_3HWB = image_B3HW.float().permute(1, 2, 3, 0).contiguous()
    return _weights(image_3HWB, dilations, w1, w2).permute(3, 0, 1, 2)


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
    size = (int(image_B3HW.shape[-2]), int(image_B3HW.shape[-1]))
    scores = scores_BKhw.float()
    if tuple(scores.shape[-2:]) != size:
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=True)
    if scores.device.type != "cpu":
        return rings_par(image_B3HW.float(), scores, iterations, dilations)
    image_3HWB = image_B3HW.float().permute(1, 2, 3, 0).contiguous()
    scores_KHWB = scores.permute(1, 2, 3, 0).contiguous()
    weights_NHWB = _weights(image_3HWB, dilations, 0.3, 0.01)
    return _iterate(weights_NHWB, scores_KHWB, iterations, dilations).permute(3, 0, 1, 2).contiguous()
