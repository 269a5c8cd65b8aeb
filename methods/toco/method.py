"""`toco`: one training step of toco.md section 2, and its teacher's projection head.

Axes: B images, C classes, H W pixels, N patch tokens, D channels, n crops, K prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness import fitting
from harness.datasets.labels import IGNORE
from harness.errors import BadInput, Problem
from harness.method import Batch, BuildInfo, OptimizerPlan, Progress, StepOutput
from methods.parts.backbones import Encoder
from methods.parts.cam import multi_scale_cam, resize, threshold_labels
from methods.parts.crops import certainty_map, cut_windows, object_windows, pick_windows
from methods.parts.energy import dense_energy_loss
from methods.parts.losses import multilabel_soft_margin
from methods.parts.pixels import denormalise
from methods.parts.projector import Projector
from methods.parts.relations import ptc_loss, token_relations
from methods.parts.schedules import power_adamw
from methods.parts.single_stage import TagSegmenter
from methods.parts.teacher import ema_update, make_teacher
from methods.parts.vit_segmenter import mode, pooled_logits
from methods.toco.config import TocoConfig
from methods.toco.losses import ctc_loss
from methods.toco.model import TocoNet, Tokens
from methods.toco.views import TocoViews

CARD_DEPTH = 12
MIN_LOCAL_TOKENS = 2


class Toco(TagSegmenter):
    """ToCo. Loss terms: `cls`, `aux`, and from their starts on `ptc`, `ctc`, `seg`, `reg`."""

    class_token = True
    cam_relu_first = False
    config: TocoConfig
    net: TocoNet

    def __init__(self, config: TocoConfig, info: BuildInfo):
        super().__init__(config, info)
        self.projector_teacher = make_teacher(self.net.projector)
        if self.config.w_ctc > 0:
            self.view_names = ("view1", "view2", "local")
        places = max(0, info.crop - self.local_side + 1) ** 2
        if self.config.w_ctc > 0 and places < self.config.local_crops:
            found = f"no room for {self.config.local_crops} local crops of {self.local_side} px in {info.crop}"
            raise BadInput(Problem("local_size", found, "a larger crop, or smaller local crops"))

    @property
    def local_side(self) -> int:
        """Side of a local crop, pixels (design section 4 d)."""
        stride = self.net.encoder.stride
        return stride * max(MIN_LOCAL_TOKENS, fitting.tokens(self.config.local_size, self.info.crop // stride))

    def network(self, encoder: Encoder) -> TocoNet:
        """The network with its auxiliary block fitted to the encoder's depth."""
        config, info = self.config, self.info
        return TocoNet(
            encoder,
            num_classes=info.num_classes,
            num_labels=info.num_labels,
            decoder=info.decoder,
            width=config.decoder_width,
            aux_block=fitting.aux_block(encoder.depth, config.aux_block, CARD_DEPTH),
            projector=Projector(
                encoder.dim, config.projector_hidden, config.projector_bottleneck, config.projector_out
            ),
            kaiming=config.kaiming_decoder,
        )

    def transform(self) -> TocoViews:
        """The views of toco.md 2.1."""
        mean, std = self.normalisation()
        return TocoViews(self.view_names, self.info.crop, self.config, mean, std)

    def optimizers(self) -> list[OptimizerPlan]:
        """AdamW that decays every parameter, warm-up and power (toco.md 3)."""
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

    def active(self, progress: Progress) -> frozenset[str]:
        """Names of the loss terms that have weight and have started: at once, or after their share of T."""
        config = self.config
        starts = {"cls": 0.0, "aux": 0.0, "ptc": config.ptc_start, "ctc": config.ctc_start}
        starts |= dict.fromkeys(("seg", "reg"), config.seg_start)
        return frozenset(
            name
            for name, start in starts.items()
            if getattr(config, f"w_{name}") > 0 and (start == 0 or progress.fraction > start)
        )

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config, net, terms = self.config, self.net, self.active(progress)
        images, tags_BC = group.views["view1"], group.tags_BC
        # View 1 is also the first global crop, and the teacher's features are the student's (toco.md 2.8).
        globals_B3HW = torch.cat([images, group.views["view2"]]) if "ctc" in terms else images
        read, class_BD = net.read(globals_B3HW)
        size = len(images)
        tokens = Tokens(read.hw, read.aux_BND[:size], read.top_BND[:size])
        losses: dict[str, Tensor] = {}
        if "cls" in terms:
            losses["cls"] = multilabel_soft_margin(pooled_logits(net.top, tokens.top_BND), tags_BC)
        if "aux" in terms:
            losses["aux"] = multilabel_soft_margin(pooled_logits(net.classifier_aux, tokens.aux_BND), tags_BC)
        if terms & {"ptc", "ctc", "seg", "reg"}:
            from_top = bool(terms & {"seg", "reg"}) and self.top_makes_labels(progress)
            aux_BCHW, top_BCHW = self.cams(images, tags_BC, tokens, with_top=from_top)
            if "ptc" in terms:
                losses["ptc"] = self.patch_contrast(tokens, aux_BCHW, group)
            if "ctc" in terms:
                losses["ctc"] = self.class_contrast(class_BD.unflatten(0, (2, size)), aux_BCHW, group)
            if terms & {"seg", "reg"}:
                losses |= self.decode(tokens, aux_BCHW if top_BCHW is None else top_BCHW, group, terms)
        return StepOutput({name: getattr(config, f"w_{name}") * loss for name, loss in losses.items()})

    def top_makes_labels(self, progress: Progress) -> bool:
        """Whether pseudo labels come from the top CAM by now, not from the auxiliary one (toco.md 2.7)."""
        start = self.config.top_start
        return start == 0 or progress.fraction > start

    @torch.no_grad()
    def cams(
        self, images_B3HW: Tensor, tags_BC: Tensor, tokens: Tokens, *, with_top: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Auxiliary and, where it is needed, top CAM (B,C,H,W) of view 1 (A3).

        The training forward's maps serve scale 1, and an auxiliary CAM alone costs only the blocks up to its own.
        """
        net, scales, classes = self.net, self.config.cam_scales, self.info.num_classes
        first_BChw = net.both_maps_of(tokens) if 1.0 in scales else None
        if first_BChw is not None and not with_top:
            first_BChw = first_BChw[:, :classes]
        with mode(net, training=False):
            cam = multi_scale_cam(
                net.both_cam_maps if with_top else net.aux_cam_maps,
                images_B3HW,
                scales,
                relu_first=self.cam_relu_first,
                first_BChw=first_BChw,
                tags_BC=torch.cat([tags_BC, tags_BC], dim=1) if with_top else tags_BC,
            )
        return cam[:, :classes], cam[:, classes:] if with_top else None

    def patch_contrast(self, tokens: Tokens, aux_BCHW: Tensor, group: Batch) -> Tensor:
        """L_ptc on normalised last tokens, relations from the auxiliary CAM at token size (A6, toco.md 2.6).

        Tokens that A4 calls background are left out where the dataset has no background class.
        """
        label_BN = threshold_labels(
            resize(aux_BCHW, tokens.hw),
            group.tags_BC,
            low=self.config.pseudo_low,
            high=self.config.pseudo_high,
            content_BHW=self.token_content(group.content_BHW, tokens.hw),
        ).flatten(1)
        if not self.info.has_background:
            label_BN = label_BN.masked_fill(label_BN == 0, IGNORE)
        return ptc_loss(tokens.top_BND, token_relations(label_BN))

    def token_content(self, content_BHW: Tensor | None, hw: tuple[int, int]) -> Tensor | None:
        """Which tokens (B,h,w) are real: those that are more than half real pixels, or by the published box.

        The published code cuts the token map by the box's pixel coordinates (toco.md 7.0).
        """
        if content_BHW is None:
            return None
        if self.config.literal_token_box:
            return content_BHW[:, : hw[0], : hw[1]]
        return resize(content_BHW[:, None].float(), hw)[:, 0] > 0.5

    def class_contrast(self, class_VBD: Tensor, aux_BCHW: Tensor, group: Batch) -> Tensor:
        """L_ctc between the class tokens of the V global views and of local crops (toco.md 2.4, 2.5)."""
        config, net, side = self.config, self.net, self.local_side
        certainty_BHW = certainty_map(aux_BCHW, group.tags_BC, low=config.pseudo_low, high=config.pseudo_high)
        batch, height, width = certainty_BHW.shape
        noise_Bhw = torch.rand(batch, height - side + 1, width - side + 1, device=certainty_BHW.device)
        corner_Bn2 = pick_windows(certainty_BHW, noise_Bhw, config.local_crops, side)
        shown_Bn = object_windows(certainty_BHW, corner_Bn2, side, config.negative_limit)
        local_D = net.class_tokens(cut_windows(group.views["local"], corner_Bn2, side).flatten(0, 1))
        global_BVD = class_VBD.transpose(0, 1)
        with torch.no_grad():
            teacher_BVK = self.projector_teacher(global_BVD)
        student_BnK = net.projector(torch.cat([global_BVD, local_D.unflatten(0, (batch, -1))], dim=1))
        always_BV = shown_Bn.new_ones(batch, global_BVD.shape[1])
        return ctc_loss(
            teacher_BVK,
            student_BnK,
            torch.cat([always_BV, shown_Bn], dim=1),
            config.ctc_tau,
            constant_term=config.ctc_constant_term,
        )

    def decode(self, tokens: Tokens, cam_BCHW: Tensor, group: Batch, terms: frozenset[str]) -> dict[str, Tensor]:
        """L_seg and L_reg on pseudo labels from a CAM (A5, A7, A8)."""
        images = group.views["view1"]
        label_BHW = self.pseudo_mask(images, cam_BCHW, group.tags_BC, group.content_BHW)
        logits_BKhw = self.net.segment(tokens.top_BND, tokens.hw).float()
        logits_BKHW = resize(logits_BKhw, (label_BHW.shape[-2], label_BHW.shape[-1]))
        losses = {}
        if "seg" in terms:
            losses["seg"] = self.segmentation_loss(logits_BKHW, label_BHW)
        if "reg" in terms:
            pixels_B3HW = denormalise(images, *self.normalisation())
            losses["reg"] = dense_energy_loss(logits_BKHW, pixels_B3HW, label_BHW, group.content_BHW)
        return losses

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """The teacher's projection head moves after a step, which is before the next loss (toco.md 2.5)."""
        ema_update(self.projector_teacher, self.net.projector, self.config.head_momentum)

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        config = self.config
        return {
            **super().describe(),
            "aux_block": self.net.aux_block,
            "local_side": self.local_side,
            "projector": [config.projector_hidden, config.projector_bottleneck, config.projector_out],
        }


def build(config: TocoConfig, info: BuildInfo) -> Toco:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Toco(config, info)
