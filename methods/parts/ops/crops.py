"""Windows cut around the pixels that a CAM is unsure of (toco.md 2.4).

Axes: B images, C channels or classes, H W pixels, n windows, s side of a window in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.parts.ops.cam import Tags, best_class

VERSION = 1
BACKGROUND, FOREGROUND = 0, 2
"""Values of a certainty map, between which 1 is uncertain."""


@torch.no_grad()
def certainty_map(cam_BCHW: Tensor, tags_BC: Tags | None, *, low: float, high: float) -> Tensor:
    """Certainty (B,H,W) uint8 of each pixel: 0 where its best present class is <= `low`, 2 where >= `high`, else 1.

    `cam_BCHW` in [0,1]. Raises ValueError for low > high.
    """
    if low > high:
        raise ValueError(f"low {low} lies above high {high}")
    v_BHW, _ = best_class(cam_BCHW, tags_BC)
    return ((v_BHW > low).to(torch.uint8) + (v_BHW >= high)).to(torch.uint8)


@torch.no_grad()
def pick_windows(certainty_BHW: Tensor, noise_Bhw: Tensor, count: int, side: int) -> Tensor:
    """Top-left corners (B,count,2), int64 y and x, of windows that lie inside the image; no corner twice.

    They are centred on pixels that are not certain foreground, those of most `noise_Bhw` (in [0,1), shape
    (B,H-side+1,W-side+1)); images with fewer than `count` such pixels draw from all. Raises ValueError where the image
    has fewer than `count` places, or the noise another shape.
    """
    height, width = certainty_BHW.shape[-2] - side + 1, certainty_BHW.shape[-1] - side + 1
    if min(height, width) < 1 or height * width < count:
        raise ValueError(f"{tuple(certainty_BHW.shape[-2:])} pixels have no room for {count} windows of {side}")
    if noise_Bhw.shape != (len(certainty_BHW), height, width):
        raise ValueError(f"noise {tuple(noise_Bhw.shape)} is not {(len(certainty_BHW), height, width)}")
    half = side // 2
    centre_Bhw = certainty_BHW[:, half : half + height, half : half + width]
    wanted_BN = (centre_Bhw != FOREGROUND).flatten(1)
    wanted_BN |= wanted_BN.sum(dim=1, keepdim=True) < count
    index_Bn = noise_Bhw.flatten(1).masked_fill(~wanted_BN, -1.0).topk(count, dim=1).indices
    return torch.stack([index_Bn // width, index_Bn % width], dim=-1)


def cut_windows(maps_BCHW: Tensor, corner_Bn2: Tensor, side: int) -> Tensor:
    """Windows (B,n,C,side,side) whose top-left corners are given, int64 y and x; differentiable."""
    every = maps_BCHW.unfold(2, side, 1).unfold(3, side, 1)
    image_B1 = torch.arange(len(maps_BCHW), device=maps_BCHW.device)[:, None]
    return every[image_B1, :, corner_Bn2[..., 0], corner_Bn2[..., 1]]


@torch.no_grad()
def object_windows(certainty_BHW: Tensor, corner_Bn2: Tensor, side: int, limit: float) -> Tensor:
    """Whether windows show the object: bool (B,n), true where the mean certainty is above `limit`, in [0,2].

    The mean is over {0,1,2}, so that certain foreground counts twice (toco.md 7.5).
    """
    mean_Bn = cut_windows(certainty_BHW[:, None].float(), corner_Bn2, side).mean(dim=(2, 3, 4))
    return mean_Bn > limit
