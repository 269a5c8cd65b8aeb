"""Presets of `fsr` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

from typing import Any

from harness.spec import Preset
from methods.parts.sizes import CARD_ITERATIONS, card_family, card_knobs, sized_preset

LAB: dict[str, Any] = {"cam_scales": (1.0,), "lr": 1e-4, "warmup": 0.05, "seg_start": 0.2}
SHAPES: dict[str, Any] = {**LAB, "lr": 7e-4, "head_lr_scale": 1.0, "par_dilations": (1, 2, 4)}
RELEASED: dict[str, Any] = {"reuse_cam": False, "imagenet_normalisation": True}
COCO_PTC_START = 12000 / 80000


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    card = card_family(family)
    knobs: dict[str, Any] = {**card_knobs(family), "card_iterations": CARD_ITERATIONS[card]}
    if card == "coco":
        knobs["ptc_start"] = COCO_PTC_START
    if family == "shapes":
        knobs |= SHAPES
    elif tier != "paper":
        knobs |= LAB
    if variant == "released":
        knobs |= RELEASED
    return sized_preset(family, tier, knobs, smoke_iterations=100, lab_iterations=400)
