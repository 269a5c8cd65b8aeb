"""Presets of `unia` by dataset family, tier and variant; no score has been recorded for them yet.

ACDC is a benchmark of the paper whose protocol is unknown (unia.md 5): it gets VOC's values and ACDC's rule of the
mutual refinement (unia.md 2.5).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset
from methods.parts.sizes import LATTICE_W_REG, card_family, card_knobs, sized_preset, small_knobs

COCO: dict[str, Any] = {
    "cam_scales": (1.0, 0.5, 0.75, 1.25, 1.5),
    "w_ptc": 0.2,
    "w_seg": 0.12,
    "ptc_start": 8000 / 80000,
    "aff_start": 12000 / 80000,
    "seg_start": 16000 / 80000,
    "seg_label": "mcr",
    "aff_label": "mcr",
    "seg_mcr_start": 30000 / 80000,
    "aff_mcr_start": 30000 / 80000,
    "kl_mcr_start": 30000 / 80000,
    "mcr_prior_start": 6000 / 80000,
}
ACDC: dict[str, Any] = {"mcr_trust_cam": True}
RELEASED: dict[str, Any] = {
    "imagenet_normalisation": True,
    "freeze_aff_bias": True,
    "bilinear_label_ids": True,
    "idle_steps": True,
    "w_reg": LATTICE_W_REG,
}
CARD_BATCH = {"voc": (4, 4), "coco": (8, 2)}
"""Global batch and images per GPU (unia.md 3)."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    card = card_family(family)
    knobs: dict[str, Any] = card_knobs(family)
    if card == "coco":
        knobs |= COCO
    if family == "acdc":
        knobs |= ACDC
    knobs |= small_knobs(family, tier, tags=True)
    if variant == "released":
        knobs |= RELEASED
    sized = sized_preset(family, tier, knobs, smoke_iterations=80, lab_iterations=300)
    if tier == "paper" and family != "shapes":
        batch, group = CARD_BATCH[card]
        sized = dataclasses.replace(sized, batch=batch, group=group, inference=PROTOCOLS["unia"])
    if variant == "released":
        # The groups for which w_aff is given: at other tiers' own sizes the weight is that of `default`.
        sized = dataclasses.replace(sized, knobs={**sized.knobs, "aff_over_batch": sized.group})
    return sized
