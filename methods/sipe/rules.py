"""What SIPE makes of its maps (sipe.md 2.5): the background has a map of its own. Plain CAMs have a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from methods.parts.bases.map_rules import MapRules
from methods.parts.ops.confident_labels import LabelCrf, self_background_labels
from methods.parts.ops.map_fusion import fused_maps
from methods.parts.ops.random_walk import decided_labels, walked_masks, walked_scores
from methods.sipe.knobs import SipeConfig


@dataclass(frozen=True)
class SipeRules(MapRules):
    """Maps are those of the background and of the classes of the tags; with the knob `maps=cam` the background's is a
    constant, which is put before them when they are read."""

    config: SipeConfig

    @property
    def own_background(self) -> bool:
        """Whether the background's map was written."""
        return self.config.maps == "is_cam"

    def labels(self, tags_C: Tensor) -> Tensor:
        classes_n = torch.nonzero(tags_C > 0)[:, 0] + 1
        return torch.cat([classes_n.new_zeros(1), classes_n]) if self.own_background else classes_n

    def full(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (1+n,H,W) at image size, in [0,1), background first."""
        fused = fused_maps(maps, size)
        if self.own_background:
            return fused
        return torch.cat([fused.new_full((1, *size), self.config.cam_background), fused])

    def decided(self, full_mHW: Tensor, labels_n: Tensor) -> Tensor:
        return decided_labels(full_mHW, self._behind_background(labels_n), background=None)

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
            self._behind_background(labels_n),
            background_factor=self.config.label_factor,
            image=image,
            crf=crf,
        )

    def start(self, maps: Sequence[Tensor], size: tuple[int, int], edge: tuple[int, int]) -> Tensor:
        full = self.full(maps, size)
        return F.interpolate(full[None], edge, mode="bilinear", align_corners=False)[0]

    def scores(self, walked_nhw: Tensor, size: tuple[int, int]) -> Tensor:
        found = walked_scores(walked_nhw, size, per_map=self.config.rw_norm == "class")
        classes = found[1:]
        if not len(classes):
            return classes
        total = classes.amax(dim=0, keepdim=True) + found[:1]
        return classes / total.clamp(min=torch.finfo(found.dtype).tiny)

    def mask(self, walked_nhw: Tensor, labels_n: Tensor, size: tuple[int, int]) -> Tensor:
        per_map = self.config.rw_norm == "class"
        return walked_masks(walked_nhw, self._behind_background(labels_n), size, background=None, per_map=per_map)

    def _behind_background(self, labels_n: Tensor) -> Tensor:
        return labels_n if self.own_background else torch.cat([labels_n.new_zeros(1), labels_n])
