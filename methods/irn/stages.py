"""Workers of the stages of `irn` that make labels of its written maps."""

from __future__ import annotations

from harness.api.images import ImageInfo
from methods.irn.config import IrnConfig
from methods.irn.rules import IrnRules
from methods.parts.stages.masks import MaskWorker
from methods.parts.stages.refine import LabelWorker


def labels(config: IrnConfig, info: ImageInfo) -> LabelWorker:
    """Worker of `refine`: confident labels by two constant background scores (irn.md 2.3)."""
    return LabelWorker(IrnRules(config, info.crop), info)


def masks(config: IrnConfig, info: ImageInfo) -> MaskWorker:
    """Worker of `masks`: walked maps held against a constant background score, or what the knob `refine` says."""
    return MaskWorker(IrnRules(config, info.crop), info)
