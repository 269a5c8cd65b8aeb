"""Workers of the stages of `sipe` that make labels of its written maps."""

from __future__ import annotations

from harness.api.images import ImageInfo
from methods.parts.stages.masks import MaskWorker
from methods.parts.stages.refine import LabelWorker
from methods.sipe.config import SipeConfig
from methods.sipe.rules import SipeRules


def labels(config: SipeConfig, info: ImageInfo) -> LabelWorker:
    """Worker of `refine`: confident labels by the background's own map, whole and weakened (sipe.md 2.5)."""
    return LabelWorker(SipeRules(config, info.crop), info)


def masks(config: SipeConfig, info: ImageInfo) -> MaskWorker:
    """Worker of `masks`: walked maps, the background's among them, or what the knob `refine` says (sipe.md 2.5)."""
    return MaskWorker(SipeRules(config, info.crop), info)
