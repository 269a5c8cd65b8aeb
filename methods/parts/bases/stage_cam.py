"""The first network of a multi-stage recipe as a `Method`: a classifier on five stages whose weights make CAMs
(irn.md 2.1, 2.2). Axes: B images, C classes, H W pixels, h w cells.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.images import covered
from harness.api.method import BuildInfo, Method, OptimizerPlan, Prediction
from methods.parts.bases.poly_sgd import poly_sgd
from methods.parts.bases.recipe_knobs import ClassifierKnobs
from methods.parts.nets.stage_classifier import FROZEN, StageClassifier
from methods.parts.nets.stages import Stages, build_stages
from methods.parts.nets.vit_segmenter import mode
from methods.parts.ops.map_fusion import mirrored_pairs
from methods.parts.ops.pixels import normalisation_of
from methods.parts.views.placed_views import PlacedViews

VERSION = 1
"""Raised when anything here computes something else."""


class StageCam(Method):
    """A classifier on the stages of `info.backbone`, of which the first three are frozen. Subclasses give `step`,
    `network` where theirs has more, `frozen` where others learn, and `localised`."""

    net: StageClassifier

    def __init__(self, config: ClassifierKnobs, info: BuildInfo):
        super().__init__()
        self.config, self.info = config, info
        stages = build_stages(info.backbone, info.backbone_weights, crop=info.crop)
        stages.freeze(self.frozen(stages))
        self.net = self.network(stages)

    def network(self, stages: Stages) -> StageClassifier:
        """The network of this method on a built backbone."""
        return StageClassifier(stages, self.info.num_classes)

    def frozen(self, stages: Stages) -> int:
        """How many of the stages nothing trains."""
        return FROZEN

    @property
    def grain(self) -> int:
        """Written maps are read at an image's size rounded up to multiples of this, pixels, and cut (`Maps.grain`)."""
        return 1

    @abstractmethod
    def localised(self, pair_2B3HW: Tensor, tags_BC: Tensor | None) -> Tensor:
        """Maps (B,L,h,w), not negative, of images and their mirrors at one scale, to be summed over scales: one of each
        class, behind one of the background where the method has such a map."""

    @abstractmethod
    def scores(self, maps_BLHW: Tensor) -> Tensor:
        """Scores of the classes (B,C,H,W) in [0,1] of summed maps at image size."""

    def background(self, maps_BLHW: Tensor) -> Tensor | None:
        """Score of the background (B,H,W) that `scores` are held against, where the method has a map of it; as written
        here there is none, and a threshold decides."""
        return None

    def transform(self) -> PlacedViews:
        """Images placed on a square (irn.md 2.1)."""
        config = self.config
        mean, std = self.normalisation()
        return PlacedViews(
            crop=self.info.crop,
            low=config.long_min,
            high=config.long_max,
            flip=config.flip_probability,
            mean=mean,
            std=std,
        )

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The network's own, or ImageNet's where the config says so (operators.md A1)."""
        stages = self.net.stages
        return normalisation_of(stages.mean, stages.std, imagenet=self.config.imagenet_normalisation)

    def optimizers(self) -> list[OptimizerPlan]:
        """SGD, new layers faster (irn.md 3)."""
        config = self.config
        lr = config.lr * config.lr_factor
        body = [p for p in self.net.stages.parameters() if p.requires_grad]
        seen = {id(p) for p in self.net.stages.parameters()}
        heads = [p for p in self.net.parameters() if id(p) not in seen]
        optimizer, factor = poly_sgd(
            [{"params": body, "lr": lr}, {"params": heads, "lr": lr * config.head_lr_scale}],
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            total=self.info.iterations,
            power=config.power,
        )
        return [OptimizerPlan(optimizer, factor, clip_norm=config.clip_norm or None)]

    def cam_logits(self, images_B3HW: Tensor) -> Tensor:
        """Class maps (B,C,h,w), with gradient."""
        return self.net.class_maps(images_B3HW)

    @torch.no_grad()
    def scale_maps(self, images_B3HW: Tensor, tags_BC: Tensor | None) -> list[Tensor]:
        """The maps (B,L,h,w) of every scale of `cam_scales`, in eval mode, at the network's own resolution."""
        with mode(self, training=False):
            return [self.localised(pair, tags_BC) for pair in mirrored_pairs(images_B3HW, self.config.cam_scales)]

    @torch.no_grad()
    def predict(
        self, images_B3HW: Tensor, tags_BC: Tensor | None = None, *, want: frozenset[str], weights: str = "student"
    ) -> Prediction:
        """CAM of all scales and mirrors, absent classes 0, and the background's score where there is one.

        Raises ValueError for another target or other weights.
        """
        if weights != "student" or want - {"cam"}:
            raise ValueError(f"{type(self).__name__} makes cam with student weights, not {sorted(want)} with {weights}")
        size = (int(images_B3HW.shape[-2]), int(images_B3HW.shape[-1]))
        total: Tensor | None = None
        for maps in self.scale_maps(images_B3HW, tags_BC):
            one = F.interpolate(maps.float(), covered(size, self.grain), mode="bilinear", align_corners=False)
            total = one if total is None else total.add_(one)
        assert total is not None
        total = total[..., : size[0], : size[1]]
        cam_BCHW = self.scores(total)
        if tags_BC is not None:
            cam_BCHW = cam_BCHW * tags_BC[:, :, None, None]
        return Prediction(cam_BCHW, background_BHW=self.background(total))

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        mean, std = self.normalisation()
        stages = self.net.stages
        return {"dims": list(stages.dims), "strides": list(stages.strides), "mean": list(mean), "std": list(std)}
