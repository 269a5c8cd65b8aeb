"""Presets of `cam` by dataset family and tier; no score has been recorded for them yet."""

from __future__ import annotations

from harness.api.spec import Preset
from methods.parts.sizes import card_knobs, sized_preset, small_knobs


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    small = small_knobs(family, tier, tags=True)
    if family == "shapes":
        small = {"w_seg": 0.2, **small}
    return sized_preset(
        family,
        tier,
        {**card_knobs(family), **small},
        smoke_iterations=140,
        lab_iterations=300,
        shapes_smoke=100,
    )
