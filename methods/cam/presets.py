"""Presets of `cam` by dataset family and tier; no score has been recorded for them yet."""

from __future__ import annotations

from typing import Any

from harness.spec import Preset
from methods.parts.sizes import card_knobs, sized_preset

LAB: dict[str, Any] = {"cam_scales": (1.0,), "lr": 1e-4, "warmup": 0.05, "seg_start": 0.2}
SHAPES: dict[str, Any] = {**LAB, "lr": 7e-4, "head_lr_scale": 1.0, "par_dilations": (1, 2, 4)}


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    small = SHAPES if family == "shapes" else LAB if tier != "paper" else {}
    return sized_preset(family, tier, {**card_knobs(family), **small}, smoke_iterations=250, lab_iterations=400)
