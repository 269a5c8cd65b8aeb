"""What SIPE makes of its maps (sipe.md 2.5): the background has a map of its own. Plain CAMs have a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.parts.bases.self_background import SelfBackgroundRules
from methods.sipe.config import SipeConfig


@dataclass(frozen=True)
class SipeRules(SelfBackgroundRules):
    """Maps are those of the background and of the classes of the tags; with the knob `maps=cam` the background's is a
    constant, which is put before them when they are read."""

    config: SipeConfig

    @property
    def label_factor(self) -> float:
        return self.config.label_factor

    @property
    def own_background(self) -> bool:
        """Whether the background's map was written."""
        return self.config.maps == "is_cam"

    def labels(self, tags_C: Tensor) -> Tensor:
        found = super().labels(tags_C)
        return found if self.own_background else found[1:]

    def full(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        found = super().full(maps, size)
        if self.own_background:
            return found
        return torch.cat([found.new_full((1, *size), self.config.cam_background), found])

    def behind_background(self, labels_n: Tensor) -> Tensor:
        return labels_n if self.own_background else torch.cat([labels_n.new_zeros(1), labels_n])
