"""`cam`: encoder, top classifier, its CAM (A3), pseudo labels from it (A5), LargeFOV and A7; nothing else."""

from __future__ import annotations

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.cam.config import CamConfig
from methods.parts.bases.single_stage import TagSegmenter
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.vit_segmenter import pooled_logits
from methods.parts.ops.losses import multilabel_soft_margin


class Cam(TagSegmenter):
    """The CAM baseline. Loss terms: `cls`, and from `seg_start` on `seg`."""

    config: CamConfig
    any_backbone = True

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        images, tags = group.views["view1"], group.tags_BC
        tokens_BND, hw, skip_BSHW = self.net.features(images)
        logits_BC = pooled_logits(self.net.top, tokens_BND)
        losses = {"cls": multilabel_soft_margin(logits_BC, tags)}
        if self.config.w_seg > 0 and progress.fraction >= self.config.seg_start:
            present = self.present(group)
            cam_BCHW = self.top_cam(self.net, images, present, self.net.top_maps(tokens_BND.detach(), hw))
            label_BHW = self.pseudo_mask(images, cam_BCHW, present, group.content_BHW)
            loss = self.segmentation_loss(self.net.segment(tokens_BND, hw, skip_BSHW), label_BHW)
            losses["seg"] = self.config.w_seg * loss
        return StepOutput(losses, take_stats(self.net))


def build(config: CamConfig, info: BuildInfo) -> Cam:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Cam(config, info)
