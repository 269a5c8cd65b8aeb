"""Presets of `full` by dataset family and tier; no score has been recorded for them yet."""

from __future__ import annotations

from harness.spec import Preset
from methods.parts.sizes import card_knobs, sized_preset, small_knobs

LAB_RATES = {"lr": 1e-4, "head_lr_scale": 10.0}
"""Dense labels bear a faster encoder than tags do."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    small = small_knobs(family, tier, tags=False)
    if small and family != "shapes":
        small |= LAB_RATES
    knobs = {"warmup": card_knobs(family)["warmup"], **small}
    return sized_preset(family, tier, knobs, smoke_iterations=160, lab_iterations=300)
