"""`gatedcrf`: one training step of sparse_baselines.md section 3.

Axes: B images, K labels, H W pixels, h w cells of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from harness.api.vocabulary import IGNORE
from methods.gatedcrf.config import GatedCrfConfig
from methods.gatedcrf.losses import Kernel, gated_crf_loss
from methods.parts.bases.sparse import SparseSegmenter

CARD_STRIDE = 4
"""Pixels per cell of the card's maps."""


class GatedCrf(SparseSegmenter):
    """Partial cross-entropy and the gated CRF loss. Loss terms: `seg`, and from its start on `crf`."""

    view_names = ("view1", "plain")
    """What the network sees, and the same crop as photographed, whose colours the kernel reads."""
    config: GatedCrfConfig

    def __init__(self, config: GatedCrfConfig, info: BuildInfo):
        super().__init__(config, info)
        encoder = self.net.encoder
        stride = CARD_STRIDE if encoder.skip_dim is not None else encoder.stride / 2**encoder.lift
        self.radius = max(1, round(config.radius * CARD_STRIDE / stride))
        self.sigma_xy = config.sigma_xy * CARD_STRIDE / stride

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config = self.config
        label_BHW, content_BHW = self.labels_of(group)
        logits_BKhw = self.net.logits(group.views["view1"]).float()
        log_probs_BKHW = self.at_size(logits_BKhw, label_BHW.shape[-2:]).log_softmax(1)
        losses = {"seg": self.partial_cross_entropy(log_probs_BKHW, label_BHW)}
        if config.w_crf > 0 and self.started(progress):
            losses["crf"] = config.w_crf * gated_crf_loss(
                logits_BKhw,
                group.views["plain"],
                kernels=self.kernels,
                radius=self.radius,
                source_BHW=content_BHW if config.gate_padding else None,
                target_BHW=label_BHW == IGNORE if config.gate_labelled else None,
            )
        return self.output(losses, label_BHW)

    def started(self, progress: Progress) -> bool:
        """Whether the loss is on: behind `crf_start`, not at it, as published (step 451 of 90,000); always for 0."""
        return self.config.crf_start == 0 or progress.fraction > self.config.crf_start

    @property
    def kernels(self) -> list[Kernel]:
        """Place and colour, and place alone where it has weight."""
        kernels: list[Kernel] = [(1.0, self.sigma_xy, self.config.sigma_rgb)]
        if self.config.w_place > 0:
            kernels.append((self.config.w_place, self.sigma_xy, None))
        return kernels

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """Running statistics of batch norm."""
        self.absorb(stats)

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        return super().describe() | {"radius": self.radius, "sigma_xy": self.sigma_xy}


def build(config: GatedCrfConfig, info: BuildInfo) -> GatedCrf:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return GatedCrf(config, info)
