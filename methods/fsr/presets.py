"""Presets of `fsr` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

from typing import Any

from harness.api.spec import Preset
from methods.parts.sizes import CARD_ITERATIONS, LATTICE_W_REG, card_family, card_knobs, sized_preset, small_knobs

RELEASED: dict[str, Any] = {"reuse_cam": False, "imagenet_normalisation": True, "w_reg": LATTICE_W_REG}
PAPER: dict[str, Any] = {
    "mask_view": "view1",
    "mask_cam": "top",
    "mask_single_scale": True,
    "mask_block": 1,
    "mask_floor": True,
    "aggregate_unmasked": True,
    "encoder_ema": False,
    "random_phase": 0.0,
    "w_reg": 0.0,
}
"""fsr.md "Paper vs code" 1-6."""
VARIANTS: dict[str, dict[str, Any]] = {"default": {}, "released": RELEASED, "paper": PAPER}
COCO_PTC_START = 12000 / 80000
SHAPES_FASTER: dict[str, Any] = {"lr": 1e-3, "head_lr_scale": 10.0, "w_seg": 0.2}
"""A step costs three of `cam`'s, so its smoke run has a third of the steps, and heads that learn faster."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default, released or paper)."""
    card = card_family(family)
    knobs: dict[str, Any] = {**card_knobs(family), "card_iterations": CARD_ITERATIONS[card]}
    if card == "coco":
        knobs["ptc_start"] = COCO_PTC_START
    knobs |= small_knobs(family, tier, tags=True)
    if family == "shapes":
        knobs |= SHAPES_FASTER
    knobs |= VARIANTS[variant]
    return sized_preset(family, tier, knobs, smoke_iterations=55, lab_iterations=300)
