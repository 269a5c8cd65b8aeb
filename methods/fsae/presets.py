"""Presets of `fsae`: knobs. The sizes of work are those of its base; no score has been recorded for them yet."""

from __future__ import annotations

from typing import Any

from harness.api.spec import Preset
from methods.parts.sizes import sized_preset

SMALL: dict[str, Any] = {"con_start": 0.2}
"""Maps that are stretched to 1 look confident from the first step on, trained or not (fsae.md 2.6), and hundreds of
steps leave an averaged teacher no time to forget what it learned from such labels."""
SHAPES: dict[str, Any] = {"n_strong_augs": 2, "jitter_hue": 0.02}
"""Colours are cues on `shapes`."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The knobs of one dataset family and tier, at the sizes of `cam`; there is one variant."""
    small = tier != "paper" or family == "shapes"
    knobs = {**(SMALL if small else {}), **(SHAPES if family == "shapes" else {})}
    return sized_preset(family, tier, knobs, smoke_iterations=120, lab_iterations=300)
