"""SIPE's classifier and its localisation maps (sipe.md 2). Axes: B images, C classes, K = C + 1 labels with background
as channel 0, H W pixels, h w cells."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.parts.bases.prototype_net import Localised, SipeNet, localise_batch
from methods.parts.bases.stage_cam import StageCam
from methods.parts.nets.stages import Stages
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.map_fusion import scores_beside_background
from methods.parts.ops.prototypes import consistency_loss, normalise, valid_map
from methods.sipe.knobs import SipeConfig


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
        if config.maps == "cam":
            plain, mirrored = self.net.class_maps(pair_2B3HW.flatten(0, 1)).float().relu().chunk(2)
            return plain + mirrored.flip(-1)
        if tags_BC is None:
            tags_BC = torch.ones(pair_2B3HW.shape[1], self.info.num_classes, device=pair_2B3HW.device)
        _, is_cam = localise_batch(
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
        """Each class's map beside the background's, which of plain CAMs is a constant: .5 is the card's argmax."""
        if self.config.maps == "is_cam":
            return scores_beside_background(maps_BLHW)
        maps = normalise(maps_BLHW)
        total_B1HW = maps.amax(dim=1, keepdim=True) + self.config.cam_background
        return maps / total_B1HW


def build(config: SipeConfig, info: BuildInfo) -> Sipe:
    """The method on its backbone. Raises BadInput where backbone, weights or crop do not fit."""
    return Sipe(config, info)
