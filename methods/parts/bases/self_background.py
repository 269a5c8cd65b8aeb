"""What recipes make of maps that have a background among them (sipe.md 2.5): SIPE's and BRNF's.

Axes: n maps of an image, the background's first, h w cells of a scale or of stride 4, H W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from methods.parts.bases.map_rules import MapRules
from methods.parts.ops.confident_labels import LabelCrf, self_background_labels
from methods.parts.ops.random_walk import decided_labels, walked_masks, walked_scores

VERSION = 1
"""Raised when anything here computes something else."""


@dataclass(frozen=True)
class SelfBackgroundRules(MapRules):
    """Maps are those of the background and of the classes of the tags."""

    @property
    @abstractmethod
    def label_factor(self) -> float:
        """Weakens the background for labels that are unsure."""

    def labels(self, tags_C: Tensor) -> Tensor:
        classes_n = torch.nonzero(tags_C > 0)[:, 0] + 1
        return torch.cat([classes_n.new_zeros(1), classes_n])

    def behind_background(self, labels_n: Tensor) -> Tensor:
        """Labels of the maps of `full`, of labels of those that were written."""
        return labels_n

    def decided(self, full_mHW: Tensor, labels_n: Tensor) -> Tensor:
        return decided_labels(full_mHW, self.behind_background(labels_n), background=None)

    def confident(
        self,
        maps: Sequence[Tensor],
        labels_n: Tensor,
        size: tuple[int, int],
        *,
        image: NDArray[np.uint8] | None = None,
        crf: LabelCrf | None = None,
    ) -> Tensor:
        return self_background_labels(
            self.full(maps, size),
            self.behind_background(labels_n),
            background_factor=self.label_factor,
            image=image,
            crf=crf,
        )

    def start(self, maps: Sequence[Tensor], size: tuple[int, int], edge: tuple[int, int]) -> Tensor:
        return F.interpolate(self.full(maps, size)[None], edge, mode="bilinear", align_corners=False)[0]

    def scores(self, walked_nhw: Tensor, size: tuple[int, int]) -> Tensor:
        found = walked_scores(walked_nhw, size, per_map=self.config.rw_norm == "class")
        classes = found[1:]
        if not len(classes):
            return classes
        total = classes.amax(dim=0, keepdim=True) + found[:1]
        return classes / total.clamp(min=torch.finfo(found.dtype).tiny)

    def mask(self, walked_nhw: Tensor, labels_n: Tensor, size: tuple[int, int]) -> Tensor:
        per_map = self.config.rw_norm == "class"
        return walked_masks(walked_nhw, self.behind_background(labels_n), size, background=None, per_map=per_map)
