"""What IRN makes of its CAMs (irn.md 2.3, 2.6): background scores are constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.irn.config import IrnConfig
from methods.parts.bases.map_rules import MapRules
from methods.parts.ops.confident_labels import LabelCrf, confident_labels
from methods.parts.ops.map_fusion import fused_maps
from methods.parts.ops.random_walk import decided_labels, walked_masks, walked_scores


@dataclass(frozen=True)
class IrnRules(MapRules):
    """Maps are those of the classes of the tags."""

    config: IrnConfig

    def labels(self, tags_C: Tensor) -> Tensor:
        return torch.nonzero(tags_C > 0)[:, 0] + 1

    def decided(self, full_mHW: Tensor, labels_n: Tensor) -> Tensor:
        return decided_labels(full_mHW, labels_n, background=self.config.cam_background)

    def confident(
        self,
        maps: Sequence[Tensor],
        labels_n: Tensor,
        size: tuple[int, int],
        *,
        image: NDArray[np.uint8] | None = None,
        crf: LabelCrf | None = None,
    ) -> Tensor:
        config = self.config
        return confident_labels(
            self.full(maps, size), labels_n, fg=config.conf_fg, bg=config.conf_bg, image=image, crf=crf
        )

    def start(self, maps: Sequence[Tensor], size: tuple[int, int], edge: tuple[int, int]) -> Tensor:
        return fused_maps(maps, edge)

    def scores(self, walked_nhw: Tensor, size: tuple[int, int]) -> Tensor:
        return walked_scores(walked_nhw, size, per_map=self.config.rw_norm == "class")

    def mask(self, walked_nhw: Tensor, labels_n: Tensor, size: tuple[int, int]) -> Tensor:
        config = self.config
        per_map = config.rw_norm == "class"
        return walked_masks(walked_nhw, labels_n, size, background=config.mask_background, per_map=per_map)
