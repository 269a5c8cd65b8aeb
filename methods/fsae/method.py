"""`fsae`: what fsae.md section 2 adds to a step of its base, and its teacher.

Axes: B images, C classes, K channels, H W pixels, h w the grid of class maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from harness.api.fitting import fit_momenta
from harness.api.method import Batch, BuildInfo, Method, OptimizerPlan, Prediction, Progress, StepOutput, Transform
from harness.errors import BadInput, Problem
from methods.fsae.config import FsaeConfig
from methods.fsae.labels import TeacherLabels, class_logits, confidence_bins, teacher_labels
from methods.fsae.losses import consistency_loss
from methods.fsae.teacher import average_trained
from methods.fsae.views import STRONG, StrongViews
from methods.parts.bases.teacher import make_teacher
from methods.parts.nets.vit_segmenter import mode

BINS = (0.4, 0.6, 0.8, 0.95, 0.99)
"""Edges of confidence in the log (fsae.md 4)."""
BACKGROUND = 0
"""Channel of background in the logits, also of a base that has one itself."""


class Fsae(Method):
    """The base with one more loss term, from `con_start` on: `con`. Its teacher is an average of the whole base."""

    teacher: Method

    def __init__(self, config: FsaeConfig, info: BuildInfo):
        super().__init__()
        if not isinstance(info.base, Method):
            raise TypeError("fsae is built on a base: write base+fsae")
        # Bases of other people need have no `config`.
        if getattr(getattr(info.base, "config", None), "device_views", False):
            fix = "device_views=false for its base"
            raise BadInput(Problem("device_views", "the strong view is made on the host, of the base's first one", fix))
        self.config = fit_momenta(config, card_iterations=config.card_iterations, iterations=info.iterations)
        self.info = info
        self.base = info.base
        self.teacher = make_teacher(self.base)
        self.stats_concat = self.base.stats_concat
        self.background_tags = self.base.background_tags

    def transform(self) -> Transform:
        """The base's views, and the strong one where the consistency has weight."""
        if self.config.w_con == 0:
            return self.base.transform()
        return StrongViews(self.base.transform(), self.config, *self.normalisation())

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """The base's losses of one group, and the consistency."""
        out = self.base.step(group, progress)
        if self.config.w_con > 0 and progress.fraction >= self.config.con_start:
            weak = next(view for name, view in group.views.items() if name != STRONG)
            labels = self.teacher_labels(weak, group.tags_BC)
            out.logged |= shares(labels)
            out.losses["con"] = self.config.w_con * self.consistency(group.views[STRONG], labels, group.tags_BC)
        return out

    def logits(self, net: Method, images_B3HW: Tensor, tags_BC: Tensor) -> Tensor:
        """Logits (B,K,h,w) of a base's class maps: its own where it has a background channel, else by the generic rule
        (fsae.md 2.6)."""
        maps = net.cam_logits(images_B3HW)
        return maps if maps.shape[1] == tags_BC.shape[1] + 1 else class_logits(maps, tags_BC, self.config.temperature)

    def teacher_labels(self, images_B3HW: Tensor, tags_BC: Tensor) -> TeacherLabels:
        """What the teacher says of weak views (fsae.md 2.3)."""
        config = self.config
        with mode(self.teacher, training=config.teacher_mode == "train"):
            logits_BKhw = self.logits(self.teacher, images_B3HW, tags_BC)
        return teacher_labels(
            logits_BKhw,
            tags_BC,
            p_cutoff=config.p_cutoff,
            bdry_cutoff=config.bdry_cutoff,
            bdry_size=config.bdry_size,
            rings=config.rings,
            absent=config.absent,
            background=BACKGROUND,
        )

    def consistency(self, strong_B3HW: Tensor, labels: TeacherLabels, tags_BC: Tensor) -> Tensor:
        """L_con of the student on strong views (fsae.md 2.4)."""
        config, mask_Bhw = self.config, labels.mask_exp
        if config.label_filter == "foreground":
            mask_Bhw = mask_Bhw & (labels.label != BACKGROUND)
        logits_BKhw = self.logits(self.base, strong_B3HW, tags_BC)
        return consistency_loss(
            logits_BKhw,
            labels.label,
            mask_Bhw,
            tags_BC,
            absent=config.absent,
            background=BACKGROUND,
            over=config.over,
        )

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """The base's own, then the teacher."""
        self.base.update(stats, progress)
        average_trained(self.teacher, self.base, self.config.ema)

    def optimizers(self) -> list[OptimizerPlan]:
        """The base's: nothing else learns."""
        return self.base.optimizers()

    def cam_logits(self, images_B3HW: Tensor) -> Tensor:
        """The base's class maps, with gradient."""
        return self.base.cam_logits(images_B3HW)

    def predict(
        self, images_B3HW: Tensor, tags_BC: Tensor | None = None, *, want: frozenset[str], weights: str = "student"
    ) -> Prediction:
        """What the base predicts with its own weights, or with the teacher's."""
        net = {"student": self.base, "teacher": self.teacher}.get(weights)
        if net is None:
            raise ValueError(f"{type(self).__name__} has no {weights} weights")
        return net.predict(images_B3HW, tags_BC, want=want)

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The base's."""
        return self.base.normalisation()

    def describe(self) -> dict[str, Any]:
        """The base's fitted values, and the teacher's momentum."""
        return {**self.base.describe(), "ema": self.config.ema}


def shares(labels: TeacherLabels) -> dict[str, Tensor]:
    """Shares of all pixels, for the log: confident ones, those of foreground, the kept ring, all that are learned from,
    and those in each bin of confidence by its upper edge (fsae.md 4)."""
    masks = {name: getattr(labels, name) for name in ("mask", "mask_fg", "ring_kept", "mask_exp")}
    bins = confidence_bins(labels.conf, BINS)
    masks |= {f"conf_to_{edge:g}": pixels for edge, pixels in zip((*BINS, 1), bins, strict=True)}
    return {name: pixels.float().mean() for name, pixels in masks.items()}


def build(config: FsaeConfig, info: BuildInfo) -> Fsae:
    """The plug-in on its built base."""
    return Fsae(config, info)
