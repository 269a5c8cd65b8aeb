"""SIPE's network, a localisation pass of it, and the fusion of passes (sipe.md 2.2, 2.4).

Axes: B images, C classes, K = C + 1 labels with background as channel 0, n labels of an image, H W pixels, h w cells,
D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.nets.stage_classifier import FROZEN, StageClassifier
from methods.parts.nets.stages import Stages
from methods.parts.ops.map_fusion import EPS, fused_maps
from methods.parts.ops.prototypes import (
    background_cam,
    class_prototypes,
    prototype_maps,
    structure_seeds,
)

VERSION = 1
"""Raised when anything here computes something else."""


class Localised(NamedTuple):
    """What a forward gives; maps are (B,K,h,w)."""

    score_BC: Tensor
    """Class logits."""
    cam: Tensor
    """In [0,1], where `valid` allows."""
    seeds: Tensor
    prototypes: Tensor
    """(B,K,D)."""
    is_cam: Tensor
    """Cosines in [0,1], not normalised."""


class SipeNet(StageClassifier):
    """Five stages of a backbone, given as modules or as `Stages`, a bias-free 1x1 convolution on each of the last four,
    and one that classifies.

    `forward(images (B,3,H,W), valid (B,K,h,w) of any size)` -> `Localised`. Statistics of batch norm stay as they are.
    The first `frozen` stages learn nothing, and what the side convolutions read learns nothing from them (sipe.md 2.3),
    but where a stage is among `attached`. `levels` names the stages, from 1, whose features make prototypes.
    """

    def __init__(
        self,
        stages: Stages | Sequence[nn.Module],
        side_dims: Sequence[int],
        classes: int,
        *,
        levels: Sequence[int] = (1, 2, 3, 4),
        frozen: int = FROZEN,
        attached: Sequence[int] = (),
    ):
        super().__init__(stages, classes, frozen=frozen)
        self.levels, self.attached = tuple(levels), frozenset(attached)
        widths = dict(enumerate(side_dims, start=1))
        self.side = nn.ModuleList(nn.Conv2d(self.stages.dims[i], widths[i], 1, bias=False) for i in self.levels)

    def maps(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class maps (B,C,h,w) and deepest features (B,D,h,w), with gradient, and the hierarchical features
        (B,D',h',w') of the size of the fourth stage, whose gradient ends in the side convolutions."""
        given = self.stages(images_B3HW, self.frozen)
        size = (int(given[3].shape[2]), int(given[3].shape[3]))
        parts = []
        for conv, level in zip(self.side, self.levels, strict=True):
            part = conv(given[level] if level in self.attached else given[level].detach())
            part = part / (part.norm(dim=1, keepdim=True) + EPS)
            parts.append(F.interpolate(part, size, mode="bilinear", align_corners=False))
        return self.classifier(given[-1]), given[-1], torch.cat(parts, dim=1)

    def forward(
        self,
        images_B3HW: Tensor,
        valid_BKhw: Tensor,
        *,
        background_factor: float = 0.5,
        seed_features: str = "x4",
        present_only: bool = False,
        map_factor: float = 1.0,
    ) -> Localised:
        """Class scores, CAM, seeds of the features `seed_features` (x4, H), prototypes and IS-CAM of a batch.

        The background competes for seeds with its IoU times `background_factor`; `map_factor` weakens its map instead.
        """
        return self.with_features(
            images_B3HW,
            valid_BKhw,
            background_factor=background_factor,
            seed_features=seed_features,
            present_only=present_only,
            map_factor=map_factor,
        )[0]

    def with_features(
        self,
        images_B3HW: Tensor,
        valid_BKhw: Tensor,
        *,
        background_factor: float = 0.5,
        seed_features: str = "x4",
        present_only: bool = False,
        map_factor: float = 1.0,
    ) -> tuple[Localised, Tensor]:
        """As `forward`, and the hierarchical features (B,D,h,w) that prototypes were made of."""
        maps_BChw, deep_BDhw, hierarchical_BDhw = self.maps(images_B3HW)
        size = (int(hierarchical_BDhw.shape[2]), int(hierarchical_BDhw.shape[3]))
        if valid_BKhw.shape[-2:] not in (size, (1, 1)):
            valid_BKhw = F.interpolate(valid_BKhw.float(), size, mode="nearest")
        cam_BKhw = background_cam(_fit(maps_BChw, size), valid_BKhw, present_only=present_only)
        cam_BKhw = weakened(cam_BKhw, map_factor)
        features = _fit(deep_BDhw, size) if seed_features == "x4" else hierarchical_BDhw
        seeds, _ = structure_seeds(cam_BKhw, features, valid_BKhw, background_factor=background_factor)
        prototypes = class_prototypes(hierarchical_BDhw, seeds)
        is_cam = prototype_maps(hierarchical_BDhw, prototypes)
        return Localised(maps_BChw.mean((2, 3)), cam_BKhw, seeds, prototypes, is_cam), hierarchical_BDhw


def _fit(maps_BDhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of the fourth stage's size; those of a ResNet of output stride 16 have it."""
    if maps_BDhw.shape[-2:] == size:
        return maps_BDhw
    return F.interpolate(maps_BDhw, size, mode="bilinear", align_corners=False)


def localise(
    network: SipeNet,
    pair_23HW: Tensor,
    tags_C: Tensor,
    *,
    background_factor: float = 0.5,
    seed_features: str = "H",
    mask_cam: bool = False,
    present_only: bool = False,
    map_factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`located` of one scale of an image, whose mirror is the pair's second (sipe.md 2.4), or of images of one size,
    (2,B,3,H,W) with tags (B,C)."""
    with torch.no_grad():
        return located(
            network.maps(pair_23HW.reshape(-1, *pair_23HW.shape[-3:])),
            tags_C,
            background_factor=background_factor,
            seed_features=seed_features,
            mask_cam=mask_cam,
            present_only=present_only,
            map_factor=map_factor,
        )


@torch.no_grad()
def located(
    pair: tuple[Tensor, Tensor, Tensor],
    tags_C: Tensor,
    *,
    background_factor: float = 0.5,
    seed_features: str = "H",
    mask_cam: bool = False,
    present_only: bool = False,
    map_factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """CAM and IS-CAM, (K,h,w) each, of an image with tags (C), or (B,K,h,w) of images with tags (B,C): of what
    `SipeNet.maps` gives of images and, behind them, their mirrors.

    Class maps and features of both are summed, the mirror's turned back. As published, seeds come from the
    hierarchical features and the CAM is not masked by the tags, so that absent classes may win cells, which then
    are no seeds.
    """
    tags_BC = tags_C[None] if tags_C.ndim == 1 else tags_C
    maps, deep, hierarchical = (x[: len(tags_BC)] + x[len(tags_BC) :].flip(-1) for x in pair)
    size = (int(hierarchical.shape[2]), int(hierarchical.shape[3]))
    valid_BK11 = torch.cat([torch.ones_like(tags_BC[:, :1]), tags_BC], dim=1).to(maps.dtype)[:, :, None, None]
    cam = background_cam(_fit(maps, size), valid_BK11, present_only=present_only, masked=mask_cam)
    cam = weakened(cam, map_factor)
    features = _fit(deep, size) if seed_features == "x4" else hierarchical
    seeds, _ = structure_seeds(cam, features, valid_BK11, background_factor=background_factor)
    is_cam = prototype_maps(hierarchical, class_prototypes(hierarchical, seeds))
    return (cam[0], is_cam[0]) if tags_C.ndim == 1 else (cam, is_cam)


def weakened(cam_BKhw: Tensor, factor: float) -> Tensor:
    """The CAM with its background map times `factor`, where the paper has what the code does to the IoU (sipe.md 3)."""
    return cam_BKhw if factor == 1 else torch.cat([cam_BKhw[:, :1] * factor, cam_BKhw[:, 1:]], dim=1)


def fuse(maps: Sequence[Tensor], tags_C: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Label values (n) of the background and the classes that occur, and their maps (n,H,W) in [0,1): the scales' maps
    (K,h,w), resized to `size`, summed and divided by their own maximum (sipe.md 2.4). Raises ValueError for no maps."""
    labels_n = torch.cat([torch.zeros(1, dtype=torch.int64, device=tags_C.device), torch.nonzero(tags_C > 0)[:, 0] + 1])
    return labels_n, fused_maps([one[labels_n] for one in maps], size)
