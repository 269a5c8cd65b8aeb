"""`toco`: one training step of toco.md section 2, and its teacher's projection head.

Axes: B images, C classes, H W pixels, N patch tokens, D channels, n crops, K prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.api import fitting
from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from harness.api.precision import no_gradient
from harness.errors import BadInput, Problem
from methods.parts.bases.aux_segmenter import PowerAuxSegmenter, Tokens, has_started
from methods.parts.bases.teacher import ema_update, make_teacher
from methods.parts.bases.together import Drawn, DrawnTogether, StepsTogether
from methods.parts.nets.backbones import Encoder
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.depth import draw_depth
from methods.parts.nets.projector import Projector
from methods.parts.nets.vit_segmenter import pooled_logits
from methods.parts.ops.cam import PresentClasses
from methods.parts.ops.crops import certainty_map, cut_windows, object_windows, pick_windows
from methods.parts.ops.losses import multilabel_soft_margin
from methods.toco.config import TocoConfig
from methods.toco.losses import ctc_loss
from methods.toco.model import TocoNet
from methods.toco.views import TocoViews

MIN_LOCAL_TOKENS = 2


@dataclass(frozen=True)
class Contrasted:
    """What L_ctc compares."""

    teacher_BVK: Tensor
    """Of the V global views."""
    student_BnK: Tensor
    """Of global views and local crops."""
    shown_Bn: Tensor
    """Those that show an object."""


@dataclass(frozen=True)
class Read:
    """What is made image by image, as far as a term reads it."""

    tokens: Tokens
    """Of view 1."""
    top_BC: Tensor | None
    aux_BC: Tensor | None
    """Class logits of both classifiers."""
    aux_Bhw: Tensor | None = None
    """Label values of tokens by the auxiliary CAM."""
    contrasted: Contrasted | None = None
    label_BHW: Tensor | None = None
    """Pseudo labels."""


class Toco(StepsTogether, PowerAuxSegmenter):
    """ToCo. Loss terms: `cls`, `aux`, and from their starts on `ptc`, `ctc`, `seg`, `reg`."""

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
        config = self.config
        return TocoNet(
            encoder,
            **self.sizes(encoder),
            projector=Projector(encoder.dim, *config.projector_sizes),
            kaiming=config.kaiming_decoder,
        )

    def transform(self) -> TocoViews:
        """The views of toco.md 2.1."""
        mean, std = self.normalisation()
        return TocoViews(self.view_names, self.info.crop, self.config, mean, std)

    def active(self, progress: Progress) -> frozenset[str]:
        """Names of the loss terms that have weight and have started: at once, or after their share of T."""
        config = self.config
        starts = {"cls": 0.0, "aux": 0.0, "ptc": config.ptc_start, "ctc": config.ctc_start}
        starts |= dict.fromkeys(("seg", "reg"), config.seg_start)
        return frozenset(
            name
            for name, start in starts.items()
            if getattr(config, f"w_{name}") > 0 and has_started(progress.fraction, start)
        )

    def draw(self, group: Batch, progress: Progress) -> Drawn:
        """Stochastic depth of global and local crops, and where the local ones lie."""
        encoder, tags_BC, contrast = self.net.encoder, group.tags_BC, "ctc" in self.active(progress)
        count = len(tags_BC)
        depth = {"globals": draw_depth(encoder, count, tags_BC, views=1 + contrast)}
        if not contrast:
            return Drawn(depth=depth)
        windows = window_noise(group.views["view1"], self.local_side)
        # All crops of an image stand together.
        depth["locals"] = draw_depth(encoder, self.config.local_crops * count, tags_BC)
        return Drawn({"windows": windows}, depth)

    def read(self, batch: Batch, progress: Progress, drawn: DrawnTogether) -> Read:
        """Passes, projections and label maps of all images."""
        net, terms, images = self.net, self.active(progress), batch.views["view1"]
        # View 1 is also the first global crop, and the teacher's features are the student's (toco.md 2.8).
        globals_B3HW = torch.cat([images, batch.views["view2"]]) if "ctc" in terms else images
        both, class_BD = net.read(globals_B3HW, drawn.depth.get("globals"))
        size = len(images)
        tokens = both.first(size)
        top_BC = pooled_logits(net.top, tokens.top_BND) if "cls" in terms else None
        aux_BC = pooled_logits(net.classifier_aux, tokens.aux_BND) if "aux" in terms else None
        if not terms & {"ptc", "ctc", "seg", "reg"}:
            return Read(tokens, top_BC, aux_BC)
        aux_Bhw = label_BHW = contrasted = None
        from_top = bool(terms & {"seg", "reg"}) and self.top_makes_labels(progress)
        present = self.present(batch)
        aux_BCHW, top_BCHW = self.cams(images, present, tokens, with_top=from_top)
        if "ptc" in terms:
            aux_Bhw = self.aux_labels(aux_BCHW, present, batch.content_BHW, tokens.hw)
        if "ctc" in terms:
            contrasted = self.class_tokens(class_BD.unflatten(0, (2, size)), aux_BCHW, present, batch, drawn)
        if terms & {"seg", "reg"}:
            cam_BCHW = aux_BCHW if top_BCHW is None else top_BCHW
            label_BHW = self.pseudo_mask(images, cam_BCHW, present, batch.content_BHW)
        return Read(tokens, top_BC, aux_BC, aux_Bhw, contrasted, label_BHW)

    def losses(self, group: Batch, read: Read, progress: Progress) -> StepOutput:
        """Losses of one group."""
        net, tags_BC, config, tokens = self.net, group.tags_BC, self.config, read.tokens
        losses: dict[str, Tensor] = {}
        if read.top_BC is not None:
            losses["cls"] = multilabel_soft_margin(read.top_BC, tags_BC)
        if read.aux_BC is not None:
            losses["aux"] = multilabel_soft_margin(read.aux_BC, tags_BC)
        if read.aux_Bhw is not None:
            losses["ptc"] = self.token_contrast(tokens, read.aux_Bhw)
        if read.contrasted is not None:
            one = read.contrasted
            losses["ctc"] = ctc_loss(
                one.teacher_BVK,
                one.student_BnK,
                one.shown_Bn,
                config.ctc_tau,
                constant_term=config.ctc_constant_term,
            )
        if read.label_BHW is not None:
            losses |= self.decode(tokens, group.views["view1"], read.label_BHW, group, self.active(progress))
        return StepOutput(self.weighted(losses, {"ctc": net.projector}), take_stats(net))

    def top_makes_labels(self, progress: Progress) -> bool:
        """Whether pseudo labels come from the top CAM by now, not from the auxiliary one (toco.md 2.7)."""
        return has_started(progress.fraction, self.config.top_start)

    def token_content(self, content_BHW: Tensor | None, hw: tuple[int, int]) -> Tensor | None:
        """Which tokens (B,h,w) are real; as published, the box of real pixels cuts tokens by its pixel coordinates
        (toco.md 7.0)."""
        if content_BHW is not None and self.config.literal_token_box:
            return content_BHW[:, : hw[0], : hw[1]]
        return super().token_content(content_BHW, hw)

    def class_tokens(
        self, class_VBD: Tensor, aux_BCHW: Tensor, present: PresentClasses, batch: Batch, drawn: DrawnTogether
    ) -> Contrasted:
        """Projected class tokens of the V global views and of local crops (toco.md 2.4, 2.5)."""
        config, net, side = self.config, self.net, self.local_side
        certainty_BHW = certainty_map(aux_BCHW, present, low=config.pseudo_low, high=config.pseudo_high)
        noise_Bhw = drawn.noise.get("windows")
        if noise_Bhw is None:
            noise_Bhw = window_noise(batch.views["view1"], side)
        corner_Bn2 = pick_windows(certainty_BHW, noise_Bhw, config.local_crops, side)
        shown_Bn = object_windows(certainty_BHW, corner_Bn2, side, config.negative_limit)
        locals_B3HW = cut_windows(batch.views["local"], corner_Bn2, side).flatten(0, 1)
        local_D = net.class_tokens(locals_B3HW, drawn.depth.get("locals"))
        global_BVD = class_VBD.transpose(0, 1)
        with no_gradient(class_VBD.device):
            teacher_BVK = self.projector_teacher(global_BVD)
        student_BnK = net.projector(torch.cat([global_BVD, local_D.unflatten(0, (len(shown_Bn), -1))], dim=1))
        always_BV = shown_Bn.new_ones(global_BVD.shape[:2])
        return Contrasted(teacher_BVK, student_BnK, torch.cat([always_BV, shown_Bn], dim=1))

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """The teacher's projection head moves after a step, which is before the next loss (toco.md 2.5)."""
        super().update(stats, progress)
        ema_update(self.projector_teacher, self.net.projector, self.config.head_momentum)

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        config = self.config
        return {
            **super().describe(),
            "local_side": self.local_side,
            "projector": [config.projector_hidden, config.projector_bottleneck, config.projector_out],
        }


def window_noise(images_B3HW: Tensor, side: int) -> Tensor:
    """What is drawn to choose local crops: (B,h,w) in [0,1), one number for each corner that fits."""
    batch, _, height, width = images_B3HW.shape
    return torch.rand(batch, height - side + 1, width - side + 1, device=images_B3HW.device)


def build(config: TocoConfig, info: BuildInfo) -> Toco:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Toco(config, info)
