"""`ema`: one training step of sparse_baselines.md section 2.

Axes: B images, K labels, H W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.api import fitting
from harness.api.dataset import Sample
from harness.api.method import Batch, BuildInfo, Progress, StepOutput, Views
from harness.api.precision import no_gradient
from methods.ema.config import EmaConfig
from methods.ema.losses import consistency_loss, ramp, warm_momentum
from methods.parts.bases.sparse import SparseNet, SparseSegmenter
from methods.parts.bases.teacher import ema_update, make_teacher
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.vit_segmenter import mode
from methods.parts.views.sparse_views import SparseViews

HALF = 0.5
SECOND_SQUARE = 0.5
"""Probability of a second square."""
BOX_AREA, BOX_ASPECT = (0.02, 0.4), (0.3, 1 / 0.3)
"""Of CutMix, shares of the crop and height over width (sparse_baselines.md 2.2)."""


@dataclass(frozen=True)
class EmaViews(SparseViews):
    """`view1`, the student's, coloured and with squares cut out, and `teacher`, the same crop as photographed."""

    knobs: EmaConfig

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The views of one image."""
        made = super().__call__(sample, rng)
        if not self.knobs.cutout:
            return made
        student = made.views["view1"].clone()
        side = max(1, round(self.knobs.cutout_side * self.crop))
        for _ in range(1 + int(rng.random() < SECOND_SQUARE)):
            y, x = (int(v) for v in rng.integers(0, self.crop - side + 1, 2))
            student[:, y : y + side, x : x + side] = 0.0  # the mean colour, normalised
        return dataclasses.replace(made, views={**made.views, "view1": student})


class Ema(SparseSegmenter):
    """A mean teacher. Loss terms: `seg` and `consistency`."""

    view_names = ("view1", "teacher")
    config: EmaConfig
    teacher: SparseNet

    def __init__(self, config: EmaConfig, info: BuildInfo):
        fitted = fitting.fit_momenta(config, card_iterations=config.card_iterations, iterations=info.iterations)
        super().__init__(fitted, info)
        self.teacher = make_teacher(self.net)

    def transform(self) -> EmaViews:
        """The student's and the teacher's view of the same crop."""
        views = super().transform()
        return EmaViews(**{f.name: getattr(views, f.name) for f in dataclasses.fields(views)})

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config = self.config
        label_BHW, content_BHW = self.labels_of(group)
        size = label_BHW.shape[-2:]
        student_B3HW = group.views["view1"]
        teacher_BKHW = self.taught(group.views["teacher"], size) if config.w_u > 0 else None
        if teacher_BKHW is not None and config.cutmix > 0:
            student_B3HW, teacher_BKHW, label_BHW, content_BHW = mixed(
                boxes(len(label_BHW), (int(size[0]), int(size[1])), config.cutmix, label_BHW.device),
                (student_B3HW, teacher_BKHW, label_BHW, content_BHW),
            )
        student_BKHW = self.at_size(self.net.logits(student_B3HW).float(), size).log_softmax(1)
        losses = {"seg": HALF * self.partial_cross_entropy(student_BKHW, label_BHW)}
        if teacher_BKHW is not None:
            counted_BHW = torch.ones_like(content_BHW) if config.count_padding else content_BHW
            consistency = consistency_loss(
                student_BKHW, teacher_BKHW, label_BHW, counted_BHW, config.tau, target=config.target, mask=config.mask
            )
            losses["consistency"] = HALF * config.w_u * ramp(progress.fraction, config.ramp) * consistency
        return self.output(losses, label_BHW)

    def taught(self, images_B3HW: Tensor, size: torch.Size) -> Tensor:
        """The teacher's logits (B,K,H,W)."""
        with mode(self.teacher, training=self.config.teacher_training), no_gradient(images_B3HW.device):
            logits_BKHW = self.at_size(self.teacher.logits(images_B3HW).float(), size)
        take_stats(self.teacher)  # what its batch norm saw in training mode is not the student's
        return logits_BKHW

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """Running statistics of the student, then the teacher's step towards it."""
        self.absorb(stats)
        ema_update(self.teacher, self.net, warm_momentum(self.since(progress), self.config.m))

    def since(self, progress: Progress) -> int:
        """Steps since the teacher started (over).

        As published it moves before a step and not behind the last one, so that it copies the student that starts an
        epoch: with restarts the step behind this one counts.
        """
        if self.config.teacher_restart <= 0:
            return progress.step
        return (progress.step + 1) % max(1, round(self.config.teacher_restart * progress.total))

    def describe(self) -> dict[str, object]:
        """Values fitted to this size."""
        return super().describe() | {"m": self.config.m}


def boxes(count: int, size: tuple[int, int], probability: float, device: torch.device) -> Tensor:
    """Where each image takes a box of another one: bool (B,H,W), no pixel where it takes none."""
    height, width = size
    area_B = torch.empty(count, device=device).uniform_(*BOX_AREA) * height * width
    aspect_B = torch.empty(count, device=device).uniform_(*BOX_ASPECT)
    high_B = (area_B * aspect_B).sqrt().clamp(max=height).round()
    wide_B = (area_B / aspect_B).sqrt().clamp(max=width).round()
    top_B = (torch.rand(count, device=device) * (height - high_B + 1)).floor()
    left_B = (torch.rand(count, device=device) * (width - wide_B + 1)).floor()
    takes_B = torch.rand(count, device=device) < probability
    y_H, x_W = torch.arange(height, device=device), torch.arange(width, device=device)
    rows_BH = (y_H >= top_B[:, None]) & (y_H < (top_B + high_B)[:, None])
    columns_BW = (x_W >= left_B[:, None]) & (x_W < (left_B + wide_B)[:, None])
    return rows_BH[:, :, None] & columns_BW[:, None] & takes_B[:, None, None]


def mixed(box_BHW: Tensor, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Maps (B,H,W) or (B,C,H,W) whose pixels in the box are those of the image before in the group."""
    return tuple(torch.where(box_BHW[:, None] if one.ndim == 4 else box_BHW, one.roll(1, 0), one) for one in maps)


def build(config: EmaConfig, info: BuildInfo) -> Ema:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Ema(config, info)
