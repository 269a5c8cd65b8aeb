"""Image-specific prototypes: class maps with a background made of them, seeds by structure, a prototype of each class
of the image, and the maps of similarity to it (sipe.md 2.2, 2.3).

Axes: B images, C classes, K = C + 1 labels with background as channel 0, h w cells, N cells in a row, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.map_fusion import EPS, over_maximum
from methods.parts.tensors import full_precision

VERSION = 1
"""Raised when anything here computes something else."""
BLOCK = 256
"""Cells whose similarity to others is held at a time."""
COSINE_EPS = 1e-8
"""Least norm of a feature or prototype in a cosine."""


def _precise(x: Tensor) -> Tensor:
    """Float64 as it is, all else float32, also under autocast."""
    return x if x.dtype == torch.float64 else x.float()


def valid_map(content_BHW: Tensor, tags_BC: Tensor, hw: tuple[int, int]) -> Tensor:
    """Where each label may be, (B,K,h,w) float32 in {0,1}: background wherever the image is, a class of the tags there
    too, nothing on padding; nearest cell (sipe.md 2.1)."""
    content_B1hw = F.interpolate(content_BHW[:, None].float(), hw, mode="nearest")
    present_BK = torch.cat([torch.ones_like(tags_BC[:, :1]), tags_BC], dim=1).float()
    return content_B1hw * present_BK[:, :, None, None]


def normalise(maps_BKhw: Tensor) -> Tensor:
    """Each map divided by (its maximum + 1e-5) (sipe.md 2.2)."""
    return over_maximum(maps_BKhw)


def background_cam(
    maps_BChw: Tensor, valid_BKhw: Tensor | None = None, *, present_only: bool = False, masked: bool = True
) -> Tensor:
    """Class maps after ReLU and division by their maximum, behind a background of 1 minus their largest: (B,K,h,w) in
    [0,1], times `valid_BKhw` unless not `masked` (sipe.md 2.2).

    As published the background is made of all classes; `present_only`: of those that `valid_BKhw` has somewhere.
    Raises ValueError for `present_only` without it.
    """
    cam_BChw = normalise(_precise(maps_BChw).relu())
    shown_BChw = cam_BChw
    if present_only:
        if valid_BKhw is None:
            raise ValueError("present_only needs valid_BKhw, which says which classes are present")
        shown_BChw = cam_BChw * (valid_BKhw[:, 1:].amax((-2, -1), keepdim=True) > 0)
    stack_BKhw = torch.cat([1 - shown_BChw.amax(dim=1, keepdim=True), cam_BChw], dim=1)
    return stack_BKhw * valid_BKhw if masked and valid_BKhw is not None else stack_BKhw


@torch.no_grad()
def structure_seeds(
    cam_BKhw: Tensor, features_BDhw: Tensor, valid_BKhw: Tensor, *, background_factor: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Seeds in {0,1} and soft IoU, (B,K,h,w) each: which class map is most like a cell's similarity to all cells, the
    background's IoU times `background_factor` (sipe.md 2.2).

    `valid_BKhw` may be (B,K,1,1). Ties go to the lower label; an IoU of nothing with nothing is 0. Raises ValueError
    where maps and features differ in size.
    """
    if cam_BKhw.shape[-2:] != features_BDhw.shape[-2:]:
        raise ValueError(f"maps of {tuple(cam_BKhw.shape[-2:])} cells, features of {tuple(features_BDhw.shape[-2:])}")
    with full_precision(cam_BKhw):
        cam_BKN = _precise(cam_BKhw).flatten(2)
        features_BDN = _precise(features_BDhw).flatten(2)
        counted = torch.cat([cam_BKN, torch.ones_like(cam_BKN[:, :1])], dim=1).to(features_BDN.dtype)
        shared_BKN, total_B1N = _similar_sum(counted, features_BDN).tensor_split([cam_BKN.shape[1]], dim=1)
        union_BKN = total_B1N + cam_BKN.sum(dim=2, keepdim=True) - shared_BKN
        iou_BKN = shared_BKN / union_BKN.clamp(min=torch.finfo(union_BKN.dtype).tiny)
        iou_BKN[:, 0] *= background_factor
    iou_BKhw = iou_BKN.view_as(cam_BKhw)
    seeds_BKhw = torch.zeros_like(iou_BKhw).scatter_(1, iou_BKhw.argmax(dim=1, keepdim=True), 1.0)
    return seeds_BKhw * valid_BKhw, iou_BKhw


def _similar_sum(maps_BLN: Tensor, features_BDN: Tensor) -> Tensor:
    """For each cell the sum over all cells of the maps (B,L,N) times the cosine of both features, 0 where negative.

    The cosines are symmetric, so that blocks of them on and above the diagonal serve all maps; the full (N,N) is
    never there.
    """
    cells = features_BDN.shape[2]
    scale_B1N = 1 / (features_BDN.square().sum(dim=1, keepdim=True).sqrt() + EPS)
    maps_BLN = maps_BLN * scale_B1N
    sum_BLN = torch.zeros_like(maps_BLN)
    for start in range(0, cells, BLOCK):
        end = min(start + BLOCK, cells)
        similar = torch.bmm(features_BDN[..., start:end].transpose(1, 2), features_BDN[..., start:]).relu_()
        sum_BLN[..., start:] += torch.bmm(maps_BLN[..., start:end], similar)
        if end < cells:
            right = similar[..., end - start :]
            sum_BLN[..., start:end] += torch.bmm(maps_BLN[..., end:], right.transpose(1, 2))
    return sum_BLN * scale_B1N


def class_prototypes(features_BDhw: Tensor, seeds_BKhw: Tensor) -> Tensor:
    """Sum of the features at a label's seeds over the number of all cells, (B,K,D); 0 without seeds (sipe.md 2.2).

    Seeds of another size are resized, nearest. The count is left out, as a cosine does not see it.
    """
    features_BDN = _precise(features_BDhw).flatten(2)
    size = (int(features_BDhw.shape[-2]), int(features_BDhw.shape[-1]))
    if seeds_BKhw.shape[-2:] != size:
        seeds_BKhw = F.interpolate(seeds_BKhw.float(), size, mode="nearest")
    with full_precision(features_BDhw):
        seeds_BKN = seeds_BKhw.flatten(2).to(features_BDN.dtype)
        return torch.bmm(seeds_BKN, features_BDN.transpose(1, 2)) / features_BDN.shape[2]


def prototype_maps(features_BDhw: Tensor, prototypes_BKD: Tensor) -> Tensor:
    """Cosine of every cell's feature and every prototype, 0 where negative: (B,K,h,w) in [0,1], not normalised
    (sipe.md 2.2 IS-CAM). A prototype of 0 gives 0."""
    with full_precision(features_BDhw):
        features_BDN = F.normalize(_precise(features_BDhw).flatten(2), dim=1, eps=COSINE_EPS)
        unit_BKD = F.normalize(_precise(prototypes_BKD), dim=2, eps=COSINE_EPS)
        cosine_BKN = torch.bmm(unit_BKD.to(features_BDN.dtype), features_BDN)
        return cosine_BKN.relu().unflatten(2, features_BDhw.shape[-2:])


def consistency_loss(cam_BKhw: Tensor, is_cam_BKhw: Tensor) -> Tensor:
    """Mean absolute difference of CAM and normalised IS-CAM over images, labels and cells: scalar (sipe.md 2.3 L_GSC).

    Labels that an image does not have are 0 on both sides, and count.
    """
    return (_precise(cam_BKhw) - _precise(is_cam_BKhw)).abs().mean()
