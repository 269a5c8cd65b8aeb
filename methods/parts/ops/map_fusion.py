"""Maps of one image at several scales, summed at one size: how IRN's recipes read what a classifier wrote.

Axes: L maps of an image, h w cells of a scale, H W target cells or pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

VERSION = 1
EPS = 1e-5


def over_maximum(maps_LHW: Tensor) -> Tensor:
    """Each map divided by (its maximum + 1e-5); leading axes are kept."""
    return maps_LHW / (maps_LHW.amax((-2, -1), keepdim=True) + EPS)


def scores_beside_background(maps_BKHW: Tensor) -> Tensor:
    """Scores (B,C,H,W) in [0,1] of classes behind a background map of their own, channel 0: each map over its maximum,
    and over the sum of the largest class and the background there.

    The best class is above .5 where it beats the background: a threshold t stands for a background map times
    t / (1 - t), and .5 for an argmax.
    """
    maps = over_maximum(maps_BKHW)
    total_B1HW = maps[:, 1:].amax(dim=1, keepdim=True) + maps[:, :1]
    return maps[:, 1:] / total_B1HW.clamp(min=torch.finfo(maps.dtype).tiny)


def rescaled(images_B3HW: Tensor, scale: float) -> Tensor:
    """Images with both sides times `scale`, rounded (bicubic, smoothed where they shrink)."""
    height, width = int(images_B3HW.shape[-2]), int(images_B3HW.shape[-1])
    size = max(1, round(scale * height)), max(1, round(scale * width))
    if size == (height, width):
        return images_B3HW
    return F.interpolate(images_B3HW, size, mode="bicubic", align_corners=False, antialias=True)


def mirrored_pairs(images_B3HW: Tensor, scales: Sequence[float]) -> Iterator[Tensor]:
    """Images and their mirrors (2,B,3,H,W) at every scale (irn.md 2.2)."""
    for scale in scales:
        scaled = rescaled(images_B3HW, scale)
        yield torch.stack([scaled, scaled.flip(-1)])


def mirrored_sum(pair_2Chw: Tensor) -> Tensor:
    """ReLU of class maps (2,...,h,w) of image and mirror, the mirror's turned back, summed: (...,h,w)."""
    both = pair_2Chw.float().relu()
    return both[0] + both[1].flip(-1)


@torch.no_grad()
def fused_maps(maps: Sequence[Tensor], size: tuple[int, int], *, crop: tuple[int, int] | None = None) -> Tensor:
    """Float32 (L,H,W) in [0,1): maps (L,h,w), not negative, of every scale, resized to `size` (bilinear), summed, cut
    to `crop`, each divided by its maximum (irn.md 2.2, sipe.md 2.4).

    Raises ValueError for no maps.
    """
    if not maps:
        raise ValueError("no maps: at least one scale is needed")
    if not len(maps[0]):
        return maps[0].new_zeros((0, *(crop or size)), dtype=torch.float32)
    total: Tensor | None = None
    for one in maps:
        resized = F.interpolate(one[None].float(), size, mode="bilinear", align_corners=False)[0]
        total = resized if total is None else total.add_(resized)
    assert total is not None
    return over_maximum(total if crop is None else total[:, : crop[0], : crop[1]])
