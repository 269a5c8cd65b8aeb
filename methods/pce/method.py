"""`pce`: cross-entropy on sparse labels."""

from __future__ import annotations

import dataclasses

from harness.method import Batch, BuildInfo, Progress, StepOutput
from methods.parts.losses import cross_entropy_ignore
from methods.parts.single_stage import Segmenter
from methods.parts.views import CropViews
from methods.pce.config import PceConfig


class Pce(Segmenter):
    """Partial cross-entropy. Loss term: `seg`."""

    config: PceConfig

    def transform(self) -> CropViews:
        """The views of `full`; labelled pixels survive shrinking where `keep_labels` says so."""
        return dataclasses.replace(super().transform(), keep_labels=self.config.keep_labels)

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Mean cross-entropy over the labelled pixels of one group, 0 where there are none (agmm.md 2.4 L_seg).

        Raises ValueError for a batch without labels.
        """
        if group.label_BHW is None:
            raise ValueError("partial cross-entropy needs sparse labels, for instance labels=points")
        logits_BKhw = self.net.segment(*self.net.tokens(group.views["view1"]))
        return StepOutput({"seg": cross_entropy_ignore(logits_BKhw, group.label_BHW)})


def build(config: PceConfig, info: BuildInfo) -> Pce:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Pce(config, info)
