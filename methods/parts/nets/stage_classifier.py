"""A classifier on the last of five stages whose weights are also a CAM (irn.md 2.1, sipe.md 2.2).

Axes: B images, C classes, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from methods.parts.nets.stages import StageList, Stages

VERSION = 1
FROZEN = 3
"""Stages that nothing trains unless said: what the third gives is detached."""


class StageClassifier(nn.Module):
    """Five stages, given as modules or as `Stages`, of which the first `frozen` get no gradient, and a bias-free 1x1
    convolution."""

    def __init__(self, stages: Stages | Sequence[nn.Module], classes: int, *, frozen: int = FROZEN):
        super().__init__()
        self.frozen = frozen
        self.stages = stages if isinstance(stages, Stages) else StageList(stages)
        self.classifier = nn.Conv2d(self.stages.dims[-1], classes, 1, bias=False)

    def class_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,C,h,w) with gradient; their spatial mean (B,C) are the class logits."""
        return self.classifier(self.stages(images_B3HW, self.frozen)[-1])
