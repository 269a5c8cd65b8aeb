"""IRN's CAMs of one image from its raw maps at several scales (irn.md 2.2). Axes: C classes, n classes that occur,
h w cells of a scale, H W target cells or pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def strided_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Cells of a map of that stride over an image of (H,W) pixels: (H - 1) // stride + 1, and so for W."""
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


@torch.no_grad()
def fused_cam(
    maps: Sequence[Tensor], tags_C: Tensor, size: tuple[int, int], *, crop: tuple[int, int] | None = None
) -> Tensor:
    """CAMs (n,H,W) in [0,1) of the classes that occur, ascending (irn.md 2.2).

    `maps` holds (2,C,h,w) of each scale: class maps before or after ReLU, of the image and of its mirror. ReLU comes
    before the sum of the two; sums over scales are made at `size`, cut to `crop`, and divided by their own maximum.
    Raises ValueError for no maps.
    """
    if not maps:
        raise ValueError("no maps: at least one scale is needed")
    present_n = torch.nonzero(tags_C > 0)[:, 0]
    if not len(present_n):
        return maps[0].new_zeros((0, *(crop or size)), dtype=torch.float32)
    total: Tensor | None = None
    for pair in maps:
        both = pair[:, present_n].float().relu()
        one = F.interpolate((both[0] + both[1].flip(-1))[None], size, mode="bilinear", align_corners=False)[0]
        total = one if total is None else total.add_(one)
    assert total is not None
    if crop is not None:
        total = total[:, : crop[0], : crop[1]]
    return total / (total.amax((-2, -1), keepdim=True) + EPS)
