"""A3 and A4: class activation maps over scales and mirrors, and labels by thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.precision import no_gradient
from harness.api.vocabulary import IGNORE
from methods.parts.tensors import true_slots

VERSION = 1


def resize(maps_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize without aligned corners; the input itself where the size is already right."""
    if tuple(maps_BCHW.shape[-2:]) == tuple(size):
        return maps_BCHW
    return F.interpolate(maps_BCHW, size=size, mode="bilinear", align_corners=False)


class PresentClasses(NamedTuple):
    """Which classes each image has, in k slots: k is the largest number of present classes of an image."""

    index_Bk: Tensor
    """int64, ascending; unreal slots point at absent classes."""
    real_Bk: Tensor
    """bool."""
    classes: int
    """C."""

    def twice(self) -> PresentClasses:
        """The same of maps that hold all C classes two times over."""
        index_Bk = torch.cat([self.index_Bk, self.index_Bk + self.classes], dim=1)
        return PresentClasses(index_Bk, torch.cat([self.real_Bk, self.real_Bk], dim=1), 2 * self.classes)


Tags = Tensor | PresentClasses
"""Tags (B,C) in {0,1}, or what `present_classes` made of them."""


def present_classes(tags: Tags, most: int | None = None) -> PresentClasses:
    """The slots of each image's present classes. `most` is k where the host knows it (`Batch.extents`): without it
    the host waits for the device that holds the tags."""
    if isinstance(tags, PresentClasses):
        return tags
    return PresentClasses(*true_slots(tags > 0, most), int(tags.shape[1]))


def gather_classes(maps_BCHW: Tensor, index_Bk: Tensor) -> Tensor:
    """Maps (B,k,H,W) of the classes in `index_Bk`."""
    return maps_BCHW.gather(1, index_Bk[:, :, None, None].expand(-1, -1, *maps_BCHW.shape[-2:]))


def scatter_classes(maps_BkHW: Tensor, index_Bk: Tensor, classes: int) -> Tensor:
    """Maps (B,classes,H,W) with `maps_BkHW` at the classes in `index_Bk` and 0 elsewhere."""
    batch, _, height, width = maps_BkHW.shape
    out_BCHW = maps_BkHW.new_zeros(batch, classes, height, width)
    return out_BCHW.scatter_(1, index_Bk[:, :, None, None].expand_as(maps_BkHW), maps_BkHW)


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
    tags_BC: Tags | None = None,
) -> Tensor:
    """CAM fused over scales (sum) and mirrors (maximum), all C classes normalised: (B,C,H,W) in [0,1) (A3).

    `fn(images) -> (B,C,h,w)` gives raw maps at any resolution. `relu_first` applies ReLU before the resize to
    image size (FSR). `first_BChw` is the raw map of the unflipped images at scale 1, where it is known.
    With `tags_BC` absent classes stay 0, which spares their resizing; the present ones are the same.
    Raises ValueError for no scales, or for `first_BChw` without scale 1.
    """
    if not scales or (first_BChw is not None and 1.0 not in scales):
        raise ValueError(f"scales {tuple(scales)}: at least one is needed, and 1 where first_BChw is given")
    size = (int(images_B3HW.shape[-2]), int(images_B3HW.shape[-1]))

    chosen = None if tags_BC is None else present_classes(tags_BC)
    if chosen is not None and not chosen.index_Bk.shape[1]:
        return images_B3HW.new_zeros((len(images_B3HW), chosen.classes, *size), dtype=torch.float32)

    def read(scaled_B3HW: Tensor) -> Tensor:
        with no_gradient(scaled_B3HW.device):
            return fn(scaled_B3HW)

    def at_image_size(raw_BChw: Tensor) -> Tensor:
        raw = raw_BChw.detach().float()
        if chosen is not None:
            raw = gather_classes(raw, chosen.index_Bk)
        return resize(raw.relu() if relu_first else raw, size)

    total: Tensor | None = None
    for scale in scales:
        scaled = resize(images_B3HW, (int(scale * size[0]), int(scale * size[1])))
        maps: list[Tensor] = []
        if scale == 1.0 and first_BChw is not None:
            maps.append(first_BChw)
            if flip:
                maps.append(read(scaled.flip(-1)).flip(-1))
        elif flip:
            plain, mirrored = read(torch.cat([scaled, scaled.flip(-1)])).chunk(2)
            maps += [plain, mirrored.flip(-1)]
        else:
            maps.append(read(scaled))
        fused = at_image_size(maps[0])
        if len(maps) == 2:
            fused = torch.maximum(fused, at_image_size(maps[1]))
        fused = fused.relu()
        total = fused if total is None else total.add_(fused)
    assert total is not None
    cam = normalise_cam(total)
    if chosen is None:
        return cam
    return scatter_classes(cam * chosen.real_Bk[:, :, None, None], chosen.index_Bk, chosen.classes)


@torch.no_grad()
def best_class(cam_BCHW: Tensor, tags_BC: Tags | None) -> tuple[Tensor, Tensor]:
    """Score `v_BHW` (float32) and label value `k_BHW` (int64, 1..C) of each pixel's best present class (A4).

    Ties go to the lower class. `tags_BC` None: every class is present. Where none is, v is 0 and k 1.
    """
    if tags_BC is None:
        v_BHW, k_BHW = cam_BCHW.float().max(dim=1)
        return v_BHW, k_BHW + 1
    index_Bk, real_Bk, _ = present_classes(tags_BC)
    if not index_Bk.shape[1]:
        v_BHW = torch.zeros_like(cam_BCHW[:, 0], dtype=torch.float32)
        return v_BHW, torch.ones_like(v_BHW, dtype=torch.int64)
    cam_BkHW = gather_classes(cam_BCHW, index_Bk).float().mul_(real_Bk[:, :, None, None])
    v_BHW, slot_BHW = cam_BkHW.max(dim=1)
    return v_BHW, (index_Bk + 1).gather(1, slot_BHW.flatten(1)).view_as(slot_BHW)


@torch.no_grad()
def threshold_labels(
    cam_BCHW: Tensor,
    tags_BC: Tags | None,
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
