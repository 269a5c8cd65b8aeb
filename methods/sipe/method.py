"""SIPE's classifier and its localisation maps (sipe.md 2). Axes: B images, C classes, K = C + 1 labels with background
as channel 0, H W pixels, h w cells."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from harness.errors import BadInput, Problem
from methods.parts.bases.prototype_net import Localised, SipeNet, localise
from methods.parts.bases.stage_cam import StageCam
from methods.parts.nets.stages import Stages
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.map_fusion import mirrored_sum
from methods.parts.ops.prototypes import consistency_loss, normalise, valid_map
from methods.sipe.config import SipeConfig


class Sipe(StageCam):
    """The CAM network with image-specific prototypes. Loss terms: `cls`, and from `gsc_start` on `gsc`."""

    config: SipeConfig
    net: SipeNet

    def network(self, stages: Stages) -> SipeNet:
        """Classifier and side convolutions on a built backbone."""
        config = self.config
        return SipeNet(stages, config.side_dims, self.info.num_classes, levels=config.levels)

    @property
    def factors(self) -> dict[str, float]:
        """What weakens the background's IoU, and its map."""
        factor = self.config.background_factor
        at_map = self.config.factor_at == "map"
        return {"background_factor": 1.0 if at_map else factor, "map_factor": factor if at_map else 1.0}

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config, images = self.config, group.views["view1"]
        if config.w_gsc == 0 or progress.fraction < config.gsc_start:
            score_BC = self.net.class_maps(images).mean((2, 3))
            return StepOutput({"cls": multilabel_soft_margin(score_BC, group.tags_BC)})
        content = group.content_BHW
        if content is None:
            content = torch.ones_like(images[:, 0], dtype=torch.bool)
        valid_BKHW = valid_map(content, group.tags_BC, (int(images.shape[2]), int(images.shape[3])))
        found = self.net(
            images,
            valid_BKHW,
            seed_features=config.seeds_train,
            present_only=config.present_background,
            **self.factors,
        )
        losses = {"cls": multilabel_soft_margin(found.score_BC, group.tags_BC)}
        losses["gsc"] = config.w_gsc * self.consistency(found, group.tags_BC)
        return StepOutput(losses)

    def consistency(self, found: Localised, tags_BC: Tensor) -> Tensor:
        """L_GSC with the knobs' gradients and mean."""
        cam, is_cam = found.cam, normalise(found.is_cam)
        if self.config.gsc_stop == "cam":
            cam = cam.detach()
        elif self.config.gsc_stop == "is_cam":
            is_cam = is_cam.detach()
        loss = consistency_loss(cam, is_cam)
        if self.config.gsc_mean == "all":
            return loss
        # Labels that an image does not have are 0 on both sides: their share of the mean is taken out.
        present = len(tags_BC) + tags_BC.sum()
        return loss * (cam.shape[0] * cam.shape[1] / present)

    def localised(self, pair_2B3HW: Tensor, tags_BC: Tensor | None) -> Tensor:
        """IS-CAM (B,K,h,w) of images and mirrors, or with the knob `maps` the CAM of the classes alone, (B,C,h,w)."""
        config = self.config
        if self.plain:
            return mirrored_sum(self.net.class_maps(pair_2B3HW.flatten(0, 1)).unflatten(0, (2, -1)))
        if tags_BC is None:
            tags_BC = torch.ones(pair_2B3HW.shape[1], self.info.num_classes, device=pair_2B3HW.device)
        _, is_cam = localise(
            self.net,
            pair_2B3HW,
            tags_BC,
            seed_features=config.seeds_infer,
            mask_cam=config.mask_cam,
            present_only=config.present_background,
            **self.factors,
        )
        return is_cam

    def scores(self, maps_BLHW: Tensor) -> Tensor:
        """Each class over its own maximum; the background's map, which is first, is left out."""
        return normalise(maps_BLHW if self.plain else maps_BLHW[:, 1:])

    def background(self, maps_BLHW: Tensor) -> Tensor | None:
        """The background's map over its maximum: the largest map decides (sipe.md 2.4). Plain CAMs have none."""
        return None if self.plain else normalise(maps_BLHW[:, :1])[:, 0]

    @property
    def plain(self) -> bool:
        """Whether its maps are the CAM itself."""
        return self.config.maps == "cam"


def build(config: SipeConfig, info: BuildInfo) -> Sipe:
    """The method on its backbone. Raises BadInput where backbone, weights or crop do not fit, and for data without a
    background, of which it makes a map."""
    if not info.has_background:
        raise BadInput(
            Problem("data", "no background class, of which sipe makes a map", "data with one, or methods=cam")
        )
    return Sipe(config, info)
