"""What the methods of sparse labels share: DeepLabV3+ on any backbone, optimiser, views (agmm.md 2.2, 3).

Axes: B images, K labels, D channels, H W pixels, h w cells of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api.fitting import FITTED_TIERS, fit_widths, tokens
from harness.api.method import Batch, BuildInfo, Method, OptimizerPlan, StepOutput
from harness.api.vocabulary import IGNORE
from harness.errors import BadInput, Problem
from methods.parts.bases.schedules import decay_groups, warmup_cosine, warmup_poly
from methods.parts.bases.single_stage import UNDECAYED, Segmenter
from methods.parts.bases.sparse_knobs import SPARSE_LABELS, SparseKnobs
from methods.parts.nets.deeplab import CARD_WIDTH, DeepLabV3Plus, GroupBatchNorm, absorb_stats, take_stats
from methods.parts.nets.dilated import dilated_backbone, train_batch_norm
from methods.parts.nets.vit_segmenter import SegmentationNet
from methods.parts.ops.losses import unlabelled_share
from methods.parts.views.sparse_views import SparseViews

VERSION = 1
"""Raised when anything here computes something else."""
DEEPLAB = "deeplabv3plus"
ENCODER = "encoder."


class SparseNet(SegmentationNet):
    """A pyramid backbone and the DeepLabV3+ decoder, which also hands out its last map."""

    def __init__(self, config: SparseKnobs, info: BuildInfo):
        super().__init__()
        self.encoder = dilated_backbone(
            info.backbone,
            config.multi_grid,
            weights=info.backbone_weights,
            crop=info.crop,
            drop=config.drop_path,
            output_stride=config.output_stride,
        )
        width = fit_widths(config, dim=self.encoder.dim, tier=info.tier).decoder_width
        self.width = min(CARD_WIDTH, width)
        self.rates = config.rates
        if info.tier in FITTED_TIERS:
            grid = max(1, info.crop // self.encoder.stride)
            self.rates = tuple(tokens(rate, grid) for rate in config.rates)
        self.decoder = DeepLabV3Plus(
            self.encoder.dim,
            self.encoder.skip_dim,
            info.num_labels,
            self.width,
            self.rates,
            config.dropout,
            lift=self.encoder.lift,
            align_corners=config.align_corners,
        )
        if config.train_norms:
            train_batch_norm(self.encoder)

    def train(self, mode: bool = True) -> SparseNet:
        """As `nn.Module.train`; batch norm that learns follows, that of a backbone that keeps its statistics not."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, GroupBatchNorm):
                module.training = mode
        return self

    def maps(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's last map (B,D,h,w), not negative, and its logits (B,K,h,w), at about stride 4."""
        features_BDhw = self.decoder.features(*self.encoder(images_B3HW))
        return features_BDhw, self.decoder.classify(features_BDhw)

    def logits(self, images_B3HW: Tensor) -> Tensor:
        return self.maps(images_B3HW)[1]


class SparseSegmenter(Segmenter):
    """A method that learns a `SparseNet` from sparse labels; subclasses give `step`.

    Its first loss term is `seg`, cross-entropy on the labelled pixels (agmm.md 2.4 L_seg).
    """

    config: SparseKnobs  # type: ignore[assignment]
    net: SparseNet  # type: ignore[assignment]

    def __init__(self, config: SparseKnobs, info: BuildInfo):
        if info.decoder != DEEPLAB:
            found = f"{info.decoder} has no stride-4 map of features, which this method reads"
            raise BadInput(Problem("decoder", found, f"decoder={DEEPLAB}"))
        Method.__init__(self)
        self.info, self.config = info, config
        self.net = SparseNet(config, info)

    def transform(self) -> SparseViews:
        """The views of agmm.md 2.1, or those of `pce`."""
        mean, std = self.normalisation()
        return SparseViews(self.view_names, self.info.crop, self.config, mean, std, self.config.keep_labels)

    def labels_of(self, group: Batch) -> tuple[Tensor, Tensor]:
        """Labels int64 and content bool (B,H,W) of a group. Raises ValueError for one without labels."""
        label_BHW = group.label_BHW
        if label_BHW is None:
            raise ValueError(
                f"{type(self).__name__} needs labels={', '.join(SPARSE_LABELS[:-1])} or {SPARSE_LABELS[-1]}"
            )
        content_BHW = torch.ones_like(label_BHW, dtype=torch.bool) if group.content_BHW is None else group.content_BHW
        return label_BHW, content_BHW

    def at_size(self, maps_BKhw: Tensor, size: torch.Size) -> Tensor:
        """Maps at another size, bilinear."""
        if maps_BKhw.shape[-2:] == size:
            return maps_BKhw
        return F.interpolate(maps_BKhw, size, mode="bilinear", align_corners=self.config.align_corners)

    def partial_cross_entropy(self, log_probs_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
        """L_seg: mean over the labelled pixels of the group, 0 where there are none; scalar, nats.

        `cross_entropy_ignore` of log-probabilities, which other losses read too.
        """
        loss_BHW = F.nll_loss(log_probs_BKHW, label_BHW, ignore_index=IGNORE, reduction="none")
        return loss_BHW.sum() / (label_BHW != IGNORE).sum().clamp(min=1)

    def output(
        self, losses: dict[str, Tensor], label_BHW: Tensor, stats: Mapping[str, Tensor] | None = None
    ) -> StepOutput:
        """A step's losses, what batch norm saw, and logged beside them the share of crops without a labelled pixel."""
        logged = {"unlabelled_crops": unlabelled_share(label_BHW)}
        return StepOutput(losses, {**(stats or {}), **take_stats(self.net)}, logged)

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        """Running statistics of the batch norm that learns."""
        absorb_stats(self.net, stats)

    def optimizers(self) -> list[OptimizerPlan]:
        """SGD with poly (agmm.md 3), or AdamW with warm-up and half-cosine as `pce` has it."""
        config, total, warmup = self.config, self.info.iterations, self.warmup_steps
        lr = config.lr_backbone * config.lr_factor
        rates = {True: lr, False: lr * config.lr_mult_head}
        sides: dict[bool, list[tuple[str, torch.nn.Parameter]]] = {True: [], False: []}
        for name, parameter in self.named_parameters():
            name = name.removeprefix("net.")
            sides[name.startswith(ENCODER)].append((name, parameter))
        if config.optimizer == "adamw":
            groups = [
                group
                for side, named in sides.items()
                for group in decay_groups(named, lr=rates[side], weight_decay=config.weight_decay, no_decay=UNDECAYED)
            ]
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, fused=True)
        else:
            groups = [
                {"params": [p for _, p in named if p.requires_grad], "lr": rates[side]} for side, named in sides.items()
            ]
            optimizer = torch.optim.SGD(groups, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay)
        if config.schedule == "cosine":
            return [OptimizerPlan(optimizer, lambda step: warmup_cosine(step, total, warmup, config.warmup_start))]
        return [
            OptimizerPlan(optimizer, lambda step: warmup_poly(step, total, warmup, config.warmup_start, config.power))
        ]

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        described = super().describe()
        return described | {"decoder_width": self.net.width, "rates": list(self.net.rates)}
