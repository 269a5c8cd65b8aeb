"""What a multi-stage recipe makes of the maps that its classifier wrote, image by image and without the network:
confident labels, walked maps, scores and masks (irn.md 2.3, 2.6, sipe.md 2.5).

Axes: n maps of an image, one of each label that occurs, h w cells of a scale or of stride 4, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.images import covered
from methods.parts.bases.boundary_trainer import fitted_radius
from methods.parts.bases.recipe_knobs import RecipeKnobs
from methods.parts.ops.confident_labels import LabelCrf
from methods.parts.ops.map_fusion import fused_maps
from methods.parts.ops.random_walk import random_walks

VERSION = 1
"""Raised when anything here computes something else."""


@dataclass(frozen=True)
class MapRules(ABC):
    """The rules of one method with its knobs; picklable, for the processes that go through a split's images.

    `maps` are those of every scale, (n,h,w) each, not normalised, of the labels `labels_n`, ascending: 0 is
    background, where the method has a map of it, and 1..C are classes.
    """

    config: RecipeKnobs
    crop: int
    """Side of the training input, by which radii are fitted."""
    grain: int = 1
    """What the maps cover, as `Maps.grain` has it."""

    @abstractmethod
    def labels(self, tags_C: Tensor) -> Tensor:
        """Label values int64 (n) of the maps that are kept of an image."""

    def full(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (m,H,W) at image size, in [0,1]: of each class that was written, and of background before them where it
        has one."""
        return fused_maps(maps, covered(size, self.grain), crop=size)

    @abstractmethod
    def decided(self, full_mHW: Tensor, labels_n: Tensor) -> Tensor:
        """Label values int64 (H,W) of maps that nothing walked, as `full` gives them: the mask without a walk."""

    @abstractmethod
    def confident(
        self,
        maps: Sequence[Tensor],
        labels_n: Tensor,
        size: tuple[int, int],
        *,
        image: NDArray[np.uint8] | None = None,
        crf: LabelCrf | None = None,
    ) -> Tensor:
        """Label values int64 (H,W) that the boundary network learns from, 255 where unsure; `crf` over `image`."""

    @abstractmethod
    def start(self, maps: Sequence[Tensor], size: tuple[int, int], edge: tuple[int, int]) -> Tensor:
        """Maps (n,h,w) in [0,1] of the boundary map's size `edge`, from which the walk starts."""

    @abstractmethod
    def scores(self, walked_nhw: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores (m,H,W) in [0,1] of the m classes among walked maps, to be held against a background score."""

    @abstractmethod
    def mask(self, walked_nhw: Tensor, labels_n: Tensor, size: tuple[int, int]) -> Tensor:
        """The pseudo mask: label values int64 (H,W)."""

    @property
    def crf_numbers(self) -> Mapping[str, float]:
        """Certainty of labels, and reach in levels and pixels, of the CRF that `confident` is given."""
        config = self.config
        return {"gt_prob": config.crf_gt_prob, "bi_rgb_std": config.crf_rgb_std, "bi_xy_std": config.crf_xy_std}

    @property
    def walk_radius(self) -> float:
        """Radius of a step in cells of stride 4."""
        return fitted_radius(self.config.rw_radius, self.crop)

    def walk(self, maps: Sequence[Tensor], edge_hw: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (n,h,w) after the random walk along boundary probabilities (h,w) of stride 4."""
        return self.walks([maps], [edge_hw], [size])[0]

    @torch.no_grad()
    def walks(
        self, maps: Sequence[Sequence[Tensor]], edges: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """`walk` of several images, in fewer calls."""
        config = self.config
        return random_walks(
            [
                self.start(of, size, (int(edge.shape[0]), int(edge.shape[1]))) ** config.rw_power
                for of, edge, size in zip(maps, edges, sizes, strict=True)
            ],
            edges,
            radius=self.walk_radius,
            beta=config.rw_beta,
            exp_times=config.rw_steps,
            damp=config.rw_damp,
        )
