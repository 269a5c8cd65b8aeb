"""A3 and A4: class activation maps over scales and mirrors, and labels by thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.datasets.base import IGNORE

VERSION = 1


def resize(maps_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize without aligned corners; the input itself where the size is already right."""
    if tuple(maps_BCHW.shape[-2:]) == tuple(size):
        return maps_BCHW
    return F.interpolate(maps_BCHW, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def normalise_cam(cam_BCHW: Tensor, eps: float = 1e-5) -> Tensor:
    """Each map shifted to minimum 0 and divided by (its maximum + eps): float32 in [0,1) (A3, last step)."""
    cam = cam_BCHW.float()
    cam = cam - cam.amin((-2, -1), keepdim=True)
    return cam.div_(cam.amax((-2, -1), keepdim=True) + eps)


@torch.no_grad()
def multi_scale_cam(
    fn: Callable[[Tensor], Tensor],
    images_B3HW: Tensor,
    scales: Sequence[float],
    *,
    flip: bool = True,
    relu_first: bool = False,
    first_BChw: Tensor | None = None,
) -> Tensor:
    """CAM fused over scales (sum) and mirrors (maximum), all C classes normalised: (B,C,H,W) in [0,1) (A3).

    `fn(images) -> (B,C,h,w)` gives raw maps at any resolution. `relu_first` applies ReLU before the resize to
    image size (FSR). `first_BChw` is the raw map of the unflipped images at scale 1, where it is known.
    Raises ValueError for no scales, or for `first_BChw` without scale 1.
    """
    if not scales or (first_BChw is not None and 1.0 not in scales):
        raise ValueError(f"scales {tuple(scales)}: at least one is needed, and 1 where first_BChw is given")
    size = (int(images_B3HW.shape[-2]), int(images_B3HW.shape[-1]))

    def at_image_size(raw_BChw: Tensor) -> Tensor:
        raw = raw_BChw.detach().float()
        return resize(raw.relu() if relu_first else raw, size)

    total: Tensor | None = None
    for scale in scales:
        scaled = resize(images_B3HW, (int(scale * size[0]), int(scale * size[1])))
        maps: list[Tensor] = []
        if scale == 1.0 and first_BChw is not None:
            maps.append(first_BChw)
            if flip:
                maps.append(fn(scaled.flip(-1)).flip(-1))
        elif flip:
            plain, mirrored = fn(torch.cat([scaled, scaled.flip(-1)])).chunk(2)
            maps += [plain, mirrored.flip(-1)]
        else:
            maps.append(fn(scaled))
        fused = at_image_size(maps[0])
        if len(maps) == 2:
            fused = torch.maximum(fused, at_image_size(maps[1]))
        fused = fused.relu()
        total = fused if total is None else total.add_(fused)
    assert total is not None
    return normalise_cam(total)


@torch.no_grad()
def best_class(cam_BCHW: Tensor, tags_BC: Tensor | None) -> tuple[Tensor, Tensor]:
    """Score `v_BHW` (float32) and label value `k_BHW` (int64, 1..C) of each pixel's best present class (A4).

    Absent classes count as 0; `tags_BC` None means that every class is present. Ties go to the lower class.
    """
    cam = cam_BCHW.float()
    if tags_BC is not None:
        cam = cam * tags_BC.to(cam.dtype)[:, :, None, None]
    v_BHW, k_BHW = cam.max(dim=1)
    return v_BHW, k_BHW + 1


@torch.no_grad()
def threshold_labels(
    cam_BCHW: Tensor,
    tags_BC: Tensor | None,
    *,
    low: float,
    high: float | None = None,
    content_BHW: Tensor | None = None,
) -> Tensor:
    """Label values int64 (B,H,W): 0 for scores <= `low`, 255 for <= `high`, else the class (A4).

    Without `high` there is no band of 255. `content_BHW` false gives 255. Raises ValueError for low > high.
    """
    if high is not None and low > high:
        raise ValueError(f"low {low} lies above high {high}")
    v_BHW, label_BHW = best_class(cam_BCHW, tags_BC)
    if high is not None:
        label_BHW = label_BHW.masked_fill_(v_BHW <= high, IGNORE)
    label_BHW.masked_fill_(v_BHW <= low, 0)
    if content_BHW is not None:
        label_BHW.masked_fill_(~content_BHW.bool(), IGNORE)
    return label_BHW
