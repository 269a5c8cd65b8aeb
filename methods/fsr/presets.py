"""Presets of `fsr` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

from typing import Any

from harness.spec import Preset
from methods.parts.sizes import CARD_ITERATIONS, card_family, card_knobs, sized_preset, small_knobs

RELEASED: dict[str, Any] = {"reuse_cam": False, "imagenet_normalisation": True}
COCO_PTC_START = 12000 / 80000
SHAPES_FASTER: dict[str, Any] = {"lr": 1e-3, "seg_start": 0.1}
"""A step costs three of `cam`'s, so its smoke run has a third of the steps."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    card = card_family(family)
    knobs: dict[str, Any] = {**card_knobs(family), "card_iterations": CARD_ITERATIONS[card]}
    if card == "coco":
        knobs["ptc_start"] = COCO_PTC_START
    knobs |= small_knobs(family, tier, tags=True)
    if family == "shapes":
        knobs |= SHAPES_FASTER
    if variant == "released":
        knobs |= RELEASED
    return sized_preset(family, tier, knobs, smoke_iterations=45, lab_iterations=300)
