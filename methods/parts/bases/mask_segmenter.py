"""The last stage of multi-stage recipes as a `Method`: an ordinary segmenter on the masks of an earlier stage.

Stage: `Train(name="train-segmenter", network="segmenter", build="methods.parts.bases.mask_segmenter:build",
label="masks")`, of a method whose config has `MaskSegmenterKnobs`. Axes: B images, K labels, H W pixels, h w cells.
"""

from __future__ import annotations

from typing import Any

from harness.api.fitting import fit_widths
from harness.api.method import Batch, BuildInfo, Method, OptimizerPlan, Progress, StepOutput
from methods.parts.bases.poly_sgd import poly_sgd
from methods.parts.bases.schedules import cosine_adamw
from methods.parts.bases.segmenter_knobs import MaskSegmenterKnobs
from methods.parts.bases.single_stage import UNDECAYED, Segmenter, decoder_dropout, decoder_stride
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.map_encoder import build_token_source
from methods.parts.nets.vit_segmenter import ViTSegmenter
from methods.parts.ops.losses import cross_entropy_ignore
from methods.parts.views.placed_views import PlacedViews

VERSION = 1
"""Raised when anything here computes something else."""
WARMUP_START = 0.1
"""Learning-rate factor of the first step of a warm-up (fsr.md 3)."""


class MaskSegmenter(Segmenter):
    """Cross-entropy on label values, 255 ignored: LargeFOV on any backbone, DeepLabV3+ likewise, DeepLabV2 on CNNs, at
    stride 8 where they can be dilated. Loss term: `seg`."""

    any_backbone = True
    config: MaskSegmenterKnobs  # type: ignore[assignment]

    def __init__(self, config: MaskSegmenterKnobs, info: BuildInfo):
        Method.__init__(self)
        encoder = build_token_source(
            info.backbone,
            info.backbone_weights,
            crop=info.crop,
            drop=config.seg_drop_path,
            output_stride=decoder_stride(info.decoder),
        )
        self.info, self.config = info, fit_widths(config, dim=encoder.dim, tier=info.tier)
        self.net = ViTSegmenter(
            encoder,
            num_classes=None,
            num_labels=info.num_labels,
            decoder=info.decoder,
            width=self.config.seg_width,
            grid=max(1, info.crop // encoder.stride),
            dropout=decoder_dropout(info.tier),
        )

    def transform(self) -> PlacedViews:
        """Random scale, mirror and place on a square; labels follow (fsae.md 4)."""
        config = self.config
        mean, std = self.normalisation()
        low, high, flip = config.seg_long_min, config.seg_long_max, config.seg_flip
        return PlacedViews(crop=self.info.crop, low=low, high=high, flip=flip, mean=mean, std=std)

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The network's own."""
        return self.net.encoder.mean, self.net.encoder.std

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Mean cross-entropy over the labelled pixels of one group, 0 where there are none.

        Raises ValueError for a batch without labels.
        """
        if group.label_BHW is None:
            raise ValueError("the segmenter learns from masks, and the batch has none")
        logits_BKhw = self.net.logits(group.views["view1"])
        return StepOutput({"seg": cross_entropy_ignore(logits_BKhw, group.label_BHW)}, take_stats(self.net))

    def optimizers(self) -> list[OptimizerPlan]:
        """SGD with a power schedule (fsae.md 4), or AdamW with warm-up and half-cosine (fsr.md 3)."""
        config, total = self.config, self.info.iterations
        lr = config.seg_lr * config.seg_lr_factor
        head_lr = lr * config.seg_head_lr_scale
        body, heads = self.body_and_heads()
        if config.seg_optimizer == "adamw":
            plan = cosine_adamw(
                body,
                heads,
                lr=lr,
                head_lr=head_lr,
                weight_decay=config.seg_weight_decay,
                total=total,
                warmup=round(config.seg_warmup * total),
                start_ratio=WARMUP_START,
                no_decay=UNDECAYED,
            )
            return [plan]
        optimizer, factor = poly_sgd(
            [
                {"params": [p for _, p in side if p.requires_grad], "lr": rate}
                for side, rate in ((body, lr), (heads, head_lr))
            ],
            weight_decay=config.seg_weight_decay,
            momentum=config.seg_momentum,
            total=total,
            power=config.seg_power,
        )
        return [OptimizerPlan(optimizer, factor)]

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        encoder = self.net.encoder
        mean, std = self.normalisation()
        return {
            "dim": encoder.dim,
            "stride": encoder.stride,
            "grid": max(1, self.info.crop // encoder.stride),
            "decoder_width": self.config.seg_width,
            "mean": list(mean),
            "std": list(std),
        }


def build(config: MaskSegmenterKnobs, info: BuildInfo) -> MaskSegmenter:
    """The segmenter on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return MaskSegmenter(config, info)
