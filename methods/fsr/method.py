"""`fsr`: one training step of fsr.md section 2, its teacher and its centres.

Axes: B images, C classes, H W pixels, N patch tokens, K prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.api import fitting
from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.fsr.config import FsrConfig
from methods.fsr.masks import masked_tokens, most_masked
from methods.fsr.model import FsrNet, Tokens
from methods.fsr.views import FsrViews
from methods.parts.bases.aux_segmenter import AuxTagSegmenter
from methods.parts.bases.teacher import ema_update, make_teacher
from methods.parts.nets.backbones import Encoder
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.projector import Projector
from methods.parts.nets.vit_segmenter import pooled_logits
from methods.parts.ops.cam import PresentClasses, Tags
from methods.parts.ops.distillation import class_loss, ema_centre, ema_momentum, patch_loss, teacher_temperature
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.pixels import denormalise
from methods.parts.tensors import at_slots, true_slots


@dataclass(frozen=True)
class StudentPasses:
    """Tokens of one step's student forward: of view 1, clean, and of the masked view where a term reads them."""

    view1: Tokens
    hidden: Tokens | None = None
    masked_BN: Tensor | None = None


class Fsr(AuxTagSegmenter):
    """FSR. Loss terms: `cls`, `class`, `patch`, and from their starts on `ptc`, `seg` and `reg`."""

    view_names = ("view1", "view2")
    config: FsrConfig
    net: FsrNet
    centre_class_K: Tensor
    centre_patch_K: Tensor

    def __init__(self, config: FsrConfig, info: BuildInfo):
        momenta = fitting.fit_momenta(config, card_iterations=config.card_iterations, iterations=info.iterations)
        super().__init__(momenta, info)
        self.teacher = make_teacher(self.net)
        for name in ("centre_class_K", "centre_patch_K"):
            self.register_buffer(name, torch.zeros(self.config.projector_out))

    def network(self, encoder: Encoder) -> FsrNet:
        """The network with its auxiliary block fitted to the encoder's depth."""
        config = self.config
        return FsrNet(
            encoder,
            **self.sizes(encoder),
            projector=Projector(encoder.dim, *config.projector_sizes),
            aggregation=config.aggregation,
            aggregation_blocks=config.aggregation_blocks,
        )

    def transform(self) -> FsrViews:
        """Two random crops in the colours of the knob `augmentation` (fsr.md 2.1)."""
        mean, std = self.normalisation()
        return FsrViews(
            names=self.view_names,
            crop=self.info.crop,
            knobs=self.config,
            mean=mean,
            std=std,
            augmentation=self.config.augmentation,
        )

    @property
    def reuse_cam(self) -> bool:
        """The knob of that name (fsr.md 7.2)."""
        return self.config.reuse_cam

    def active(self, progress: Progress) -> frozenset[str]:
        """Names of the loss terms that have weight and have started."""
        config = self.config
        starts = {"cls": 0.0, "class": 0.0, "patch": 0.0, "ptc": config.ptc_start, "seg": config.seg_start}
        starts["reg"] = config.seg_start
        return frozenset(
            name for name, start in starts.items() if getattr(config, f"w_{name}") > 0 and progress.fraction >= start
        )

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group, and the means that its centres move to."""
        terms, present = self.active(progress), self.present(group)
        passes = self.student_forward(group, present, terms, progress)
        losses: dict[str, Tensor] = {}
        if "cls" in terms:
            losses["cls"] = self.classification(passes.view1, group.tags_BC)
        stats = self.distil(group, terms, passes, progress, losses)
        if terms & {"ptc", "seg", "reg"}:
            images, tokens = group.views["view1"], passes.view1
            with_top = bool(terms & {"seg", "reg"})
            aux_BCHW, top_BCHW = self.cams(images, present, tokens, with_top=with_top)
            if "ptc" in terms:
                losses["ptc"] = self.token_contrast(
                    tokens, self.aux_labels(aux_BCHW, present, group.content_BHW, tokens.hw)
                )
            if top_BCHW is not None:
                label_BHW = self.pseudo_mask(images, top_BCHW, present, group.content_BHW)
                losses |= self.decode(tokens, images, label_BHW, group, terms)
        weighted = {name: getattr(self.config, f"w_{name}") * loss for name, loss in losses.items()}
        return StepOutput(weighted, {**stats, **take_stats(self.net)})

    def student_forward(
        self, group: Batch, present: PresentClasses, terms: frozenset[str], progress: Progress
    ) -> StudentPasses:
        """View 1 clean and, where a distillation term is on, the view to mask masked (fsr.md 2.4).

        Both in one pass where they are different views; a mask on view 1 may need its clean tokens first.
        """
        view1 = group.views["view1"]
        if not terms & {"class", "patch"}:
            return StudentPasses(self.net.read(view1))
        if self.config.mask_view == "view1":
            clean = self.net.read(view1)
            masked_BN = self.masked_tokens(view1, present, progress, clean)
            return StudentPasses(clean, self.net.read(view1, masked_BN), masked_BN)
        view2 = group.views["view2"]
        masked_BN = self.masked_tokens(view2, present, progress)
        both = self.net.read(torch.cat([view1, view2]), torch.cat([torch.zeros_like(masked_BN), masked_BN]))
        return StudentPasses(*both.halves(), masked_BN)

    def masked_tokens(
        self, view_B3HW: Tensor, tags_BC: Tags, progress: Progress, clean: Tokens | None = None
    ) -> Tensor:
        """Masked tokens of a view, bool (B,N); `clean` its unmasked tokens, where they were read (fsr.md 2.3)."""
        pixels = denormalise(view_B3HW, *self.normalisation()) if self.config.selection == "edge_strict" else None
        return masked_tokens(self.net, self.config, view_B3HW, tags_BC, progress, clean=clean, pixels_B3HW=pixels)

    def classification(self, tokens: Tokens, tags_BC: Tensor) -> Tensor:
        """L_cls of both heads (fsr.md 2.5)."""
        top_BC = pooled_logits(self.net.top, tokens.top_BND)
        aux_BC = pooled_logits(self.net.classifier_aux, tokens.aux_BND)
        return multilabel_soft_margin(top_BC, tags_BC) + multilabel_soft_margin(aux_BC, tags_BC)

    def distil(
        self,
        group: Batch,
        terms: frozenset[str],
        passes: StudentPasses,
        progress: Progress,
        losses: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Adds L_class and L_patch to `losses`; returns the teacher's mean projections (fsr.md 2.5)."""
        if passes.hidden is None or passes.masked_BN is None:
            return {}
        config, stats = self.config, {}
        tau_t = teacher_temperature(
            progress.step, progress.total, config.tau_teacher_start, config.tau_teacher, config.tau_rise
        )
        class_BK, patch_BNK = self.teacher_forward(group, terms)
        if class_BK is not None:
            left_out_BN = passes.masked_BN if config.aggregate_unmasked else None
            student_BK = self.net.project_class(passes.hidden.raw_BND, left_out_BN)
            losses["class"] = class_loss(student_BK, class_BK, self.centre_class_K, config.tau_student, tau_t)
            stats["centre_class"] = class_BK.mean(dim=0)
        if patch_BNK is not None:
            index_BM, real_BM = true_slots(passes.masked_BN, most_masked(config, passes.hidden.hw))
            losses["patch"] = patch_loss(
                self.net.projector(at_slots(passes.hidden.top_BND, index_BM)),
                at_slots(patch_BNK, index_BM),
                self.centre_patch_K,
                config.tau_student,
                tau_t,
                real_BM,
            )
            stats["centre_patch"] = patch_BNK.mean(dim=(0, 1))
        return stats

    @torch.no_grad()
    def teacher_forward(self, group: Batch, terms: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """The teacher's class projection (B,K) of the view that is never masked and patch projections (B,N,K) of the
        other one, here unmasked too.

        A view that no active term reads is not run. The teacher is in train mode, as published (fsr.md 2.4).
        """
        teacher, masked = self.teacher, self.config.mask_view
        assert isinstance(teacher, FsrNet)
        other = "view2" if masked == "view1" else "view1"
        names = [n for n, term in ((other, "class"), (masked, "patch")) if term in terms]
        read = teacher.read(torch.cat([group.views[n] for n in names]))
        size = len(group.tags_BC)
        class_BK = teacher.project_class(read.raw_BND[:size]).float() if "class" in terms else None
        patch_BNK = teacher.projector(read.top_BND[-size:]).float() if "patch" in terms else None
        return class_BK, patch_BNK

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """Centres, then the teacher's parameters (fsr.md 2.5, 2.6)."""
        super().update(stats, progress)
        for name, centre_K in (("centre_class", self.centre_class_K), ("centre_patch", self.centre_patch_K)):
            if name in stats:
                centre_K.copy_(ema_centre(centre_K, stats[name], self.config.centre_momentum))
        momentum = ema_momentum(progress.step, progress.total, self.config.teacher_momentum)
        assert self.teacher is not None
        ema_update(self.teacher, self.net, momentum, averaged=("",) if self.config.encoder_ema else ("projector.",))

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        base = super().describe()
        config, grid = self.config, base["grid"]
        return {
            **base,
            "mask_block": fitting.tokens(config.mask_block, grid),
            "mask_cells": fitting.cells(grid, config.mask_block),
            "teacher_momentum": config.teacher_momentum,
            "centre_momentum": config.centre_momentum,
            "projector": [config.projector_hidden, config.projector_bottleneck, config.projector_out],
        }


def build(config: FsrConfig, info: BuildInfo) -> Fsr:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Fsr(config, info)
