"""IRN's CAMs of one image from its raw maps at several scales (irn.md 2.2). Axes: C classes, n classes that occur,
h w cells of a scale, H W target cells or pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.parts.ops.map_fusion import fused_maps, mirrored_sum


@torch.no_grad()
def fused_cam(
    maps: Sequence[Tensor], tags_C: Tensor, size: tuple[int, int], *, crop: tuple[int, int] | None = None
) -> Tensor:
    """CAMs (n,H,W) in [0,1) of the classes that occur, ascending (irn.md 2.2).

    `maps` holds (2,C,h,w) of each scale: class maps before or after ReLU, of the image and of its mirror. ReLU comes
    before the sum of the two; sums over scales are made at `size`, cut to `crop`, and divided by their own maximum.
    Raises ValueError for no maps.
    """
    present_n = torch.nonzero(tags_C > 0)[:, 0]
    return fused_maps([mirrored_sum(pair[:, present_n]) for pair in maps], size, crop=crop)
