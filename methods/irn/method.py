"""The classifier of `irn` and its CAMs (irn.md 2.1, 2.2). Axes: B images, C classes, H W pixels, h w cells."""

from __future__ import annotations

from torch import Tensor

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.irn.config import IrnConfig
from methods.parts.bases.stage_cam import StageCam
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.map_fusion import mirrored_sum, over_maximum


class Irn(StageCam):
    """The CAM network. Loss term: `cls`."""

    config: IrnConfig

    @property
    def grain(self) -> int:
        """Stride of the deepest map (irn.md 2.2 high_res: 16); networks that resize their images show no more of
        them."""
        return self.net.stages.strides[-1] if self.net.stages.pads else 1

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Loss of one group."""
        logits_BC = self.net.class_maps(group.views["view1"]).mean((2, 3))
        return StepOutput({"cls": multilabel_soft_margin(logits_BC, group.tags_BC)})

    def localised(self, pair_2B3HW: Tensor, tags_BC: Tensor | None) -> Tensor:
        """ReLU of the class maps of image and mirror, summed: (B,C,h,w)."""
        return mirrored_sum(self.net.class_maps(pair_2B3HW.flatten(0, 1)).unflatten(0, (2, -1)))

    def scores(self, maps_BLHW: Tensor) -> Tensor:
        """Each class over its own maximum."""
        return over_maximum(maps_BLHW)


def build(config: IrnConfig, info: BuildInfo) -> Irn:
    """The method on its backbone. Raises BadInput where backbone, weights or crop do not fit."""
    return Irn(config, info)
