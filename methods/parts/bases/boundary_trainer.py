"""The second network of a multi-stage recipe as a `Method`: a boundary map learned from pairs of confident labels
(irn.md 2.4, 2.5). Axes: B images, H W pixels, h w cells of stride 4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.method import Batch, BuildInfo, Method, OptimizerPlan, Prediction, Progress, StepOutput
from methods.parts.bases.poly_sgd import poly_sgd
from methods.parts.bases.recipe_knobs import RecipeKnobs
from methods.parts.nets.boundary import STRIDE, BoundaryNet
from methods.parts.nets.stages import build_stages
from methods.parts.nets.vit_segmenter import mode
from methods.parts.ops.map_fusion import rescaled
from methods.parts.ops.pixel_pairs import affinity, affinity_loss, displacement_loss, pair_labels
from methods.parts.ops.pixels import normalisation_of
from methods.parts.views.placed_views import ScaledViews

VERSION = 1
"""Raised when anything here computes something else."""
CARD_CELLS = 128
"""Cells a side of the card's crop, for which the knobs count radii."""
LEAST_RADIUS = 3


def fitted_radius(radius: float, crop: int) -> float:
    """A radius in cells of a crop of 512 pixels, in proportion for another one, at least 3 (irn.md 7.12)."""
    cells = crop // STRIDE
    if cells == CARD_CELLS:
        return radius
    return float(max(LEAST_RADIUS, math.floor(radius * cells / CARD_CELLS + 0.5)))


class BoundaryTrainer(Method):
    """Learns class boundaries on a frozen backbone. Loss terms: `edge`, and with the knob `displacement` also `dp`.

    Its batches hold label values of stride 4. Raises ValueError where the crop is too small for any pair.
    """

    def __init__(self, config: RecipeKnobs, info: BuildInfo):
        super().__init__()
        self.config, self.info = config, info
        self.radius = fitted_radius(config.aff_radius, info.crop)
        if info.crop // STRIDE < 2 * self.radius:
            raise ValueError(f"a crop of {info.crop} pixels holds no pairs {self.radius:g} cells apart")
        stages = build_stages(info.backbone, info.backbone_weights, crop=info.crop)
        self.net = BoundaryNet(stages, displacement=config.displacement)

    def transform(self) -> ScaledViews:
        """Random scale, mirror and window; labels at stride 4 (irn.md 2.5)."""
        config = self.config
        mean, std = self.normalisation()
        return ScaledViews(
            crop=self.info.crop,
            low=config.aff_scale_min,
            high=config.aff_scale_max,
            flip=config.flip_probability,
            coarse=STRIDE,
            mean=mean,
            std=std,
        )

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The network's own, or ImageNet's where the config says so (operators.md A1)."""
        stages = self.net.stages
        return normalisation_of(stages.mean, stages.std, imagenet=self.config.imagenet_normalisation)

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group. Raises ValueError for a batch without labels."""
        if group.label_BHW is None:
            raise ValueError("the boundary network learns from confident labels, and the batch has none")
        logits_B1hw, displacement_B2hw = self.net(group.views["view1"])
        pairs = pair_labels(group.label_BHW, self.radius)
        edge_Bhw = logits_B1hw[:, 0].float().sigmoid()
        losses = {"edge": affinity_loss(affinity(edge_Bhw, self.radius), *pairs)}
        if displacement_B2hw is not None:
            losses["dp"] = displacement_loss(displacement_B2hw, *pairs[:2], self.radius)
        return StepOutput(losses)

    def optimizers(self) -> list[OptimizerPlan]:
        """SGD on the heads, the displacement's faster (irn.md 3)."""
        config, lr = self.config, self.config.aff_lr
        groups: list[dict[str, Any]] = [{"params": list(self.net.edge.parameters()), "lr": lr}]
        if self.net.displacement is not None:
            groups.append({"params": list(self.net.displacement.parameters()), "lr": lr * config.head_lr_scale})
        optimizer, factor = poly_sgd(
            groups,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            total=self.info.iterations,
            power=config.power,
        )
        return [OptimizerPlan(optimizer, factor)]

    @torch.no_grad()
    def boundaries(self, images_B3HW: Tensor) -> Tensor:
        """Boundary probabilities (B,h,w), h = ceil(H/4), of images and mirrors over the knob `edge_scales`, in eval
        mode (irn.md 2.6).

        Images smaller than the crop are padded to it with the mean colour, right and below, as published.
        """
        height, width = int(images_B3HW.shape[2]), int(images_B3HW.shape[3])
        target = -(-height // STRIDE), -(-width // STRIDE)
        total: Tensor | None = None
        with mode(self, training=False):
            for scale in self.config.edge_scales:
                logits = self._logits(rescaled(images_B3HW, scale))
                one = F.interpolate(logits, target, mode="bilinear", align_corners=False)[:, 0]
                total = one if total is None else total + one
        assert total is not None
        return (total / len(self.config.edge_scales)).sigmoid()

    def _logits(self, images_B3HW: Tensor) -> Tensor:
        """Mean boundary logits (B,1,h,w) of images and their mirrors."""
        height, width = int(images_B3HW.shape[2]), int(images_B3HW.shape[3])
        down, right = max(0, self.info.crop - height), max(0, self.info.crop - width)
        both = F.pad(torch.cat([images_B3HW, images_B3HW.flip(-1)]), (0, right, 0, down))
        logits = self.net(both)[0].float()[:, :, : -(-height // STRIDE), : -(-width // STRIDE)]
        plain, mirrored = logits.chunk(2)
        return (plain + mirrored.flip(-1)) / 2

    def predict(
        self, images_B3HW: Tensor, tags_BC: Tensor | None = None, *, want: frozenset[str], weights: str = "student"
    ) -> Prediction:
        """Nothing: boundaries are no target. Raises ValueError."""
        raise ValueError(f"{type(self).__name__} makes boundaries, not {', '.join(sorted(want))}")

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        return {
            "aff_radius": self.radius,
            "rw_radius": fitted_radius(self.config.rw_radius, self.info.crop),
            "strides": list(self.net.stages.strides),
        }


def build(config: RecipeKnobs, info: BuildInfo) -> BoundaryTrainer:
    """The boundary network of a recipe. Raises BadInput where backbone, weights or crop do not fit."""
    return BoundaryTrainer(config, info)
