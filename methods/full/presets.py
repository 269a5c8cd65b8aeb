"""Presets of `full` by dataset family and tier; no score has been recorded for them yet."""

from __future__ import annotations

from typing import Any

from harness.spec import Preset
from methods.parts.sizes import card_knobs, sized_preset

LAB: dict[str, Any] = {"lr": 1e-4, "warmup": 0.05}
SHAPES: dict[str, Any] = {**LAB, "lr": 7e-4, "head_lr_scale": 1.0}


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    small = SHAPES if family == "shapes" else LAB if tier != "paper" else {}
    knobs = {"warmup": card_knobs(family)["warmup"], **small}
    return sized_preset(family, tier, knobs, smoke_iterations=250, lab_iterations=400)
