"""`cam`: encoder, top classifier, its CAM (A3), pseudo labels from it (A5), LargeFOV and A7; nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.cam.config import CamConfig
from methods.parts.bases.single_stage import TagSegmenter
from methods.parts.bases.together import Drawn, DrawnTogether, StepsTogether
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.depth import draw_depth
from methods.parts.nets.vit_segmenter import pooled_logits
from methods.parts.ops.losses import multilabel_soft_margin


@dataclass(frozen=True)
class Read:
    """What the losses read of images."""

    hw: tuple[int, int]
    logits_BC: Tensor
    tokens_BND: Tensor
    skip_BSHW: Tensor | None
    label_BHW: Tensor | None
    """Pseudo labels, once they are learned from."""


class Cam(StepsTogether, TagSegmenter):
    """The CAM baseline. Loss terms: `cls`, and from `seg_start` on `seg`."""

    config: CamConfig
    any_backbone = True

    def draw(self, group: Batch, progress: Progress) -> Drawn:
        """Stochastic depth."""
        return Drawn(depth={"view1": draw_depth(self.net.encoder, len(group.tags_BC), group.tags_BC)})

    def read(self, batch: Batch, progress: Progress, drawn: DrawnTogether) -> Read:
        """Tokens, class logits and pseudo labels of all images."""
        images, label_BHW = batch.views["view1"], None
        tokens_BND, hw, skip_BSHW = self.net.features(images, drawn.depth.get("view1"))
        logits_BC = pooled_logits(self.net.top, tokens_BND)
        if self.config.w_seg > 0 and progress.fraction >= self.config.seg_start:
            present = self.present(batch)
            cam_BCHW = self.top_cam(self.net, images, present, self.net.top_maps(tokens_BND.detach(), hw))
            label_BHW = self.pseudo_mask(images, cam_BCHW, present, batch.content_BHW)
        return Read(hw, logits_BC, tokens_BND, skip_BSHW, label_BHW)

    def losses(self, group: Batch, read: Read, progress: Progress) -> StepOutput:
        """Losses of one group."""
        losses = {"cls": multilabel_soft_margin(read.logits_BC, group.tags_BC)}
        if read.label_BHW is not None:
            logits_BKhw = self.net.segment(read.tokens_BND, read.hw, read.skip_BSHW)
            losses["seg"] = self.config.w_seg * self.segmentation_loss(logits_BKhw, read.label_BHW)
        return StepOutput(losses, take_stats(self.net))


def build(config: CamConfig, info: BuildInfo) -> Cam:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Cam(config, info)
