"""`fsr`: one training step of fsr.md section 2, its teacher and its centres.

Axes: B images, C classes, H W pixels, N patch tokens, K prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.api import fitting
from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from harness.api.precision import no_gradient
from methods.fsr.config import FsrConfig
from methods.fsr.masks import mask_noise, masked_tokens, most_masked
from methods.fsr.model import FsrNet, Tokens
from methods.fsr.read import Projected, Read, StudentPasses
from methods.fsr.views import FsrViews
from methods.parts.bases.aux_segmenter import AuxTagSegmenter
from methods.parts.bases.teacher import ema_update, make_teacher
from methods.parts.bases.together import Drawn, DrawnTogether, StepsTogether
from methods.parts.nets.backbones import Encoder
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.depth import draw_depth
from methods.parts.nets.projector import Projector
from methods.parts.nets.vit_segmenter import pooled_logits
from methods.parts.ops.cam import PresentClasses, Tags
from methods.parts.ops.distillation import class_loss, ema_centre, ema_momentum, patch_loss, teacher_temperature
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.pixels import denormalise
from methods.parts.tensors import at_slots, true_slots

DISTILLED = frozenset({"class", "patch"})
"""Terms that compare a student with a teacher."""


class Fsr(StepsTogether, AuxTagSegmenter):
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

    def views(self) -> FsrViews:
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

    @property
    def takes_groups(self) -> bool:
        """Where CAM passes, which the variant `released` runs in train mode, draw nothing."""
        return self.reuse_cam and super().takes_groups

    def draw(self, group: Batch, progress: Progress) -> Drawn:
        """Stochastic depth of student and teacher, and which cells are masked."""
        net, teacher, tags_BC = self.net, self.teacher, group.tags_BC
        assert isinstance(teacher, FsrNet)
        terms, count = self.active(progress), len(tags_BC)
        if not terms & DISTILLED:
            return Drawn(depth={"clean": draw_depth(net.encoder, count, tags_BC)})
        depth = {}
        if self.config.mask_view == "view1":
            depth["clean"] = draw_depth(net.encoder, count, tags_BC)
        cells = mask_noise(net, self.config, group.views[self.config.mask_view])
        if self.config.mask_view == "view1":
            depth["hidden"] = draw_depth(net.encoder, count, tags_BC)
        else:
            depth["both"] = draw_depth(net.encoder, count, tags_BC, views=2)
        views = len(self.teacher_views(terms))
        depth["teacher"] = draw_depth(teacher.encoder, count, tags_BC, views)
        return Drawn({} if cells is None else {"cells": cells}, depth)

    def read(self, batch: Batch, progress: Progress, drawn: DrawnTogether) -> Read:
        """Passes, projections and label maps of all images."""
        terms, present, images = self.active(progress), self.present(batch), batch.views["view1"]
        passes = self.student_forward(batch, present, terms, progress, drawn)
        tokens = passes.view1
        top_BC = aux_BC = None
        if "cls" in terms:
            top_BC = pooled_logits(self.net.top, tokens.top_BND)
            aux_BC = pooled_logits(self.net.classifier_aux, tokens.aux_BND)
        projected = self.projections(batch, terms, passes, drawn)
        aux_Bhw = label_BHW = None
        if terms & {"ptc", "seg", "reg"}:
            aux_BCHW, top_BCHW = self.cams(images, present, tokens, with_top=bool(terms & {"seg", "reg"}))
            if "ptc" in terms:
                aux_Bhw = self.aux_labels(aux_BCHW, present, batch.content_BHW, tokens.hw)
            if top_BCHW is not None:
                label_BHW = self.pseudo_mask(images, top_BCHW, present, batch.content_BHW)
        return Read(tokens.first(len(images)), top_BC, aux_BC, projected, aux_Bhw, label_BHW)

    def losses(self, group: Batch, read: Read, progress: Progress) -> StepOutput:
        """Losses of one group, and the means that its centres move to."""
        terms = self.active(progress)
        losses: dict[str, Tensor] = {}
        if read.top_BC is not None and read.aux_BC is not None:  # L_cls of both heads (fsr.md 2.5)
            losses["cls"] = multilabel_soft_margin(read.top_BC, group.tags_BC)
            losses["cls"] = losses["cls"] + multilabel_soft_margin(read.aux_BC, group.tags_BC)
        stats = self.distil(read.projected, progress, losses)
        if read.aux_Bhw is not None:
            losses["ptc"] = self.token_contrast(read.view1, read.aux_Bhw)
        if read.label_BHW is not None:
            losses |= self.decode(read.view1, group.views["view1"], read.label_BHW, group, terms)
        weighted = {name: getattr(self.config, f"w_{name}") * loss for name, loss in losses.items()}
        return StepOutput(weighted, {**stats, **take_stats(self.net)})

    def student_forward(
        self, batch: Batch, present: PresentClasses, terms: frozenset[str], progress: Progress, drawn: DrawnTogether
    ) -> StudentPasses:
        """View 1 clean and, where a distillation term is on, the view to mask masked (fsr.md 2.4).

        Both in one pass where they are different views; a mask on view 1 may need its clean tokens first.
        """
        view1, depth, cells = batch.views["view1"], drawn.depth, drawn.noise.get("cells")
        if not terms & DISTILLED:
            return StudentPasses(self.net.read(view1, depth_LB=depth.get("clean")))
        if self.config.mask_view == "view1":
            clean = self.net.read(view1, depth_LB=depth.get("clean"))
            masked_BN = self.masked_tokens(view1, present, progress, clean, cells)
            return StudentPasses(clean, self.net.read(view1, masked_BN, depth.get("hidden")), masked_BN)
        view2 = batch.views["view2"]
        masked_BN = self.masked_tokens(view2, present, progress, noise=cells)
        hidden_BN = torch.cat([torch.zeros_like(masked_BN), masked_BN])
        both = self.net.read(torch.cat([view1, view2]), hidden_BN, depth.get("both"))
        return StudentPasses(*both.halves(), masked_BN)

    def masked_tokens(
        self,
        view_B3HW: Tensor,
        tags_BC: Tags,
        progress: Progress,
        clean: Tokens | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Masked tokens of a view, bool (B,N); `clean` its unmasked tokens, where they were read (fsr.md 2.3)."""
        pixels = denormalise(view_B3HW, *self.normalisation()) if self.config.selection == "edge_strict" else None
        return masked_tokens(
            self.net, self.config, view_B3HW, tags_BC, progress, clean=clean, pixels_B3HW=pixels, noise=noise
        )

    def projections(
        self, batch: Batch, terms: frozenset[str], passes: StudentPasses, drawn: DrawnTogether
    ) -> Projected:
        """What the distillation terms compare (fsr.md 2.5)."""
        net, hidden, masked_BN = self.net, passes.hidden, passes.masked_BN
        if hidden is None or masked_BN is None:
            return Projected()
        teacher_BK, teacher_BNK = self.teacher_forward(batch, terms, drawn)
        student_BK = None
        if teacher_BK is not None:
            student_BK = net.project_class(hidden.raw_BND, masked_BN if self.config.aggregate_unmasked else None)
        if teacher_BNK is None:
            return Projected(student_BK, teacher_BK)
        index_BM, real_BM = true_slots(masked_BN, most_masked(self.config, hidden.hw))
        student_BMK = net.projector(at_slots(hidden.top_BND, index_BM))
        return Projected(student_BK, teacher_BK, student_BMK, at_slots(teacher_BNK, index_BM), real_BM, teacher_BNK)

    def distil(self, read: Projected, progress: Progress, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds L_class and L_patch to `losses`; returns the teacher's mean projections (fsr.md 2.5)."""
        config, stats = self.config, {}
        tau, step, total = config.tau_student, progress.step, progress.total
        tau_t = teacher_temperature(step, total, config.tau_teacher_start, config.tau_teacher, config.tau_rise)
        if read.student_BK is not None and read.teacher_BK is not None:
            losses["class"] = class_loss(read.student_BK, read.teacher_BK, self.centre_class_K, tau, tau_t)
            stats["centre_class"] = read.teacher_BK.mean(dim=0)
        if read.teacher_BNK is not None:
            student_BMK, teacher_BMK, real_BM = read.student_BMK, read.teacher_BMK, read.real_BM
            assert student_BMK is not None
            assert teacher_BMK is not None
            losses["patch"] = patch_loss(student_BMK, teacher_BMK, self.centre_patch_K, tau, tau_t, real_BM)
            stats["centre_patch"] = read.teacher_BNK.mean(dim=(0, 1))
        return stats

    def teacher_views(self, terms: frozenset[str]) -> list[str]:
        """The views that the teacher reads: for `class` the one that is never masked, for `patch` the other one, here
        unmasked too."""
        masked = self.config.mask_view
        other = "view2" if masked == "view1" else "view1"
        return [name for name, term in ((other, "class"), (masked, "patch")) if term in terms]

    def teacher_forward(
        self, batch: Batch, terms: frozenset[str], drawn: DrawnTogether
    ) -> tuple[Tensor | None, Tensor | None]:
        """The teacher's class projection (B,K) and patch projections (B,N,K) of `teacher_views`.

        A view that no active term reads is not run. The teacher is in train mode, as published (fsr.md 2.4).
        """
        teacher = self.teacher
        assert isinstance(teacher, FsrNet)
        images_B3HW = torch.cat([batch.views[n] for n in self.teacher_views(terms)])
        with no_gradient(images_B3HW.device):
            read = teacher.read(images_B3HW, depth_LB=drawn.depth.get("teacher"))
            size = len(batch.tags_BC)
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
