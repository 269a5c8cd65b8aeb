"""Network and method of FSR, ToCo and UniA: a second classifier on an intermediate block, whose CAM makes the relations
of tokens, beside the top classifier, whose CAM makes pseudo labels.

Part of `single_stage`, whose version it has. Axes: B images, C classes, K labels, H W pixels, h w tokens a side,
N tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import fitting
from harness.api.method import Batch, OptimizerPlan
from harness.api.vocabulary import IGNORE
from methods.parts.bases.power_knobs import PowerKnobs
from methods.parts.bases.schedules import power_adamw
from methods.parts.bases.single_stage import TagSegmenter
from methods.parts.knobs import AuxSegmenterKnobs, SegmenterKnobs
from methods.parts.nets.backbones import Encoded, Encoder, encode
from methods.parts.nets.vit_segmenter import ViTSegmenter, as_map, class_maps, mode
from methods.parts.ops.cam import Tags, multi_scale_cam, present_classes, resize, threshold_labels
from methods.parts.ops.energy import dense_energy_loss
from methods.parts.ops.pixels import denormalise
from methods.parts.ops.relations import ptc_loss, token_relations

CARD_DEPTH = 12
"""Blocks of the network for which the cards count the auxiliary block."""


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of a forward: tapped for the auxiliary classifier (no norm), and what the top classifier reads."""

    hw: tuple[int, int]
    aux_BND: Tensor
    top_BND: Tensor
    skip_BSHW: Tensor | None = field(default=None, kw_only=True)
    """The encoder's stride-4 map, where it has one."""

    def first(self, count: int) -> Tokens:
        """What both classifiers and the decoder read of the first `count` images."""
        skip_BSHW = None if self.skip_BSHW is None else self.skip_BSHW[:count]
        return Tokens(self.hw, self.aux_BND[:count], self.top_BND[:count], skip_BSHW=skip_BSHW)


class AuxViTSegmenter(ViTSegmenter):
    """`ViTSegmenter` with an auxiliary classifier behind block `aux_block` (1-based).

    `kaiming` false starts the decoder as PyTorch does (operators.md A9).
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        num_labels: int,
        aux_block: int,
        kaiming: bool = True,
        **decoder: Any,
    ):
        super().__init__(encoder, num_classes=num_classes, num_labels=num_labels, **decoder)
        self.aux_block = aux_block
        self.classifier_aux = class_maps(encoder.dim, num_classes)
        if not kaiming:
            for module in self.decoder.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()

    def cam_tokens(self, images_B3HW: Tensor) -> Tokens:
        """What both classifiers read of these images."""
        return self.tokens_of(encode(self.encoder, images_B3HW, tap=self.aux_block))

    def tokens_of(self, encoded: Encoded) -> Tokens:
        """What both classifiers read of a forward that was tapped."""
        assert encoded.tapped_BND is not None
        top_BND = self.encoder.norm(encoded.last_BND)
        return Tokens(encoded.hw, encoded.tapped_BND, top_BND, skip_BSHW=encoded.skip_BSHW)

    def aux_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,C,h,w) of the auxiliary classifier; the blocks behind it are not run."""
        encoded = encode(self.encoder, images_B3HW, tap=self.aux_block, stop_at_tap=True)
        return self.classifier_aux(as_map(encoded.last_BND, encoded.hw))

    def both_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,2C,h,w): auxiliary classifier, then top classifier."""
        return self.both_maps_of(self.cam_tokens(images_B3HW))

    def both_maps_of(self, tokens: Tokens) -> Tensor:
        """Raw class maps (B,2C,h,w) of tokens that were read already."""
        aux_BChw = self.classifier_aux(as_map(tokens.aux_BND, tokens.hw))
        return torch.cat([aux_BChw, self.top_maps(tokens.top_BND, tokens.hw)], dim=1)


class AuxTagSegmenter(TagSegmenter):
    """A `TagSegmenter` on an `AuxViTSegmenter`."""

    config: AuxSegmenterKnobs
    net: AuxViTSegmenter

    def aux_block(self, encoder: Encoder) -> int:
        """The knob `aux_block`, fitted to the encoder's depth (design section 4 e)."""
        return fitting.aux_block(encoder.depth, self.config.aux_block, CARD_DEPTH)

    def sizes(self, encoder: Encoder) -> dict[str, Any]:
        """What every `AuxViTSegmenter` is told of data, decoder and auxiliary block."""
        info = self.info
        labels = {"num_classes": info.num_classes, "num_labels": info.num_labels}
        return {**labels, **self.decoder_sizes(encoder), "aux_block": self.aux_block(encoder)}

    @property
    def reuse_cam(self) -> bool:
        """Whether the training forward's maps serve scale 1 of a CAM, the other maps being read in eval mode."""
        return True

    @torch.no_grad()
    def cams(
        self, images_B3HW: Tensor, tags_BC: Tags, tokens: Tokens, *, with_top: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Auxiliary and, where it is asked for, top CAM (B,C,H,W) of images whose training forward left `tokens` (A3).

        An auxiliary CAM alone costs only the blocks up to its own.
        """
        net, scales, classes = self.net, self.config.cam_scales, self.info.num_classes
        present = present_classes(tags_BC)
        first_BChw = None
        if self.reuse_cam and 1.0 in scales:
            first_BChw = net.both_maps_of(tokens)
            first_BChw = first_BChw if with_top else first_BChw[:, :classes]
        with mode(net, training=not self.reuse_cam):
            cam = multi_scale_cam(
                net.both_cam_maps if with_top else net.aux_cam_maps,
                images_B3HW,
                scales,
                relu_first=self.cam_relu_first,
                first_BChw=first_BChw,
                tags_BC=present.twice() if with_top else present,
            )
        return cam[:, :classes], cam[:, classes:] if with_top else None

    def aux_labels(self, aux_BCHW: Tensor, tags_BC: Tags, content_BHW: Tensor | None, hw: tuple[int, int]) -> Tensor:
        """Label values (B,h,w) of tokens by the auxiliary CAM's two thresholds (A4)."""
        config = self.config
        return threshold_labels(
            resize(aux_BCHW, hw),
            tags_BC,
            low=config.pseudo_low,
            high=config.pseudo_high,
            content_BHW=self.token_content(content_BHW, hw),
        )

    def token_contrast(self, tokens: Tokens, label_Bhw: Tensor) -> Tensor:
        """L_ptc on what the top classifier reads (A6)."""
        return ptc_loss(tokens.top_BND, token_relations(self.token_ids(label_Bhw)))

    def token_ids(self, label_Bhw: Tensor) -> Tensor:
        """Label values (B,N) of tokens; where the data has no background class, what A4 calls background is ignored."""
        label_BN = label_Bhw.flatten(1)
        return label_BN if self.info.has_background else label_BN.masked_fill(label_BN == 0, IGNORE)

    def token_content(self, content_BHW: Tensor | None, hw: tuple[int, int]) -> Tensor | None:
        """Tokens (B,h,w) that are real: more than half of the four pixels at their centre are."""
        return None if content_BHW is None else resize(content_BHW[:, None].float(), hw)[:, 0] > 0.5

    def decode(
        self, tokens: Tokens, images_B3HW: Tensor, label_BHW: Tensor, group: Batch, terms: frozenset[str]
    ) -> dict[str, Tensor]:
        """L_seg and L_reg, as far as they are among `terms`, on the decoder's label values (A7, A8)."""
        logits_BKhw = self.net.segment(tokens.top_BND, tokens.hw, tokens.skip_BSHW)
        losses: dict[str, Tensor] = {}
        if "seg" in terms:
            losses["seg"] = self.segmentation_loss(logits_BKhw, label_BHW)
        if "reg" in terms:
            pixels_B3HW = denormalise(images_B3HW, *self.normalisation())
            losses["reg"] = dense_energy_loss(logits_BKhw, pixels_B3HW, label_BHW, group.content_BHW)
        return losses

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        return {**super().describe(), "aux_block": self.net.aux_block}


class PowerAuxSegmenter(AuxTagSegmenter):
    """ToCo's optimiser and its way of starting losses, which UniA took over (toco.md 2.7, 3; unia.md 2.6, 3)."""

    cam_relu_first = False
    config: PowerKnobs

    def with_class_token(self, config: SegmenterKnobs) -> bool:
        """Always."""
        return True

    def optimizers(self) -> list[OptimizerPlan]:
        """AdamW that decays every parameter, heads faster, warm-up and power."""
        config = self.config
        lr = config.lr * config.lr_factor
        return [
            power_adamw(
                self.net.named_parameters(),
                lr=lr,
                head_lr=lr * config.head_lr_scale,
                weight_decay=config.weight_decay,
                total=self.info.iterations,
                warmup=self.warmup_steps,
                start_ratio=config.warmup_start,
                power=config.power,
            )
        ]

    def weighted(self, losses: dict[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Losses times their weights. `heads`: modules that only one loss trains, by its name, the decoder aside.

        With the knob `idle_steps` heads whose losses have weight but have not started get gradients of 0.
        """
        weight = {name: float(getattr(self.config, f"w_{name}")) for name in (*losses, "seg", "reg", *heads)}
        weighted = {name: weight[name] * loss for name, loss in losses.items()}
        if self.config.idle_steps and weighted:
            users = [(("seg", "reg"), self.net.decoder), *(((name,), head) for name, head in heads.items())]
            idle = [head for names, head in users if any(weight[n] for n in names) and not losses.keys() & set(names)]
            first = next(iter(weighted))
            weighted[first] = weighted[first] + sum(0.0 * p.sum() for head in idle for p in head.parameters())
        return weighted


def has_started(fraction: float, start: float) -> bool:
    """Whether a share of T lies behind: at once for 0, else from the step after it, as ToCo and UniA count."""
    return start == 0 or fraction > start
