"""`full`: cross-entropy on true masks."""

from __future__ import annotations

from harness.method import Batch, BuildInfo, Progress, StepOutput
from methods.full.config import FullConfig
from methods.parts.losses import cross_entropy_ignore
from methods.parts.single_stage import Segmenter


class Full(Segmenter):
    """Full supervision. Loss term: `seg`."""

    config: FullConfig

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Cross-entropy of one group. Raises ValueError for a batch without masks."""
        if group.label_BHW is None:
            raise ValueError("full supervision needs labels=masks")
        logits_BKhw = self.net.segment(*self.net.tokens(group.views["view1"]))
        return StepOutput({"seg": cross_entropy_ignore(logits_BKhw, group.label_BHW)})


def build(config: FullConfig, info: BuildInfo) -> Full:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Full(config, info)
