"""Presets of `fsae`: knobs. The sizes of work are those of its base.

Seen on `shapes`, tier smoke (120 steps, LargeFOV, seed 0, 100 test images): CAM at the fixed threshold minus that of
`cam` alone, 27.4, is -6.8 with `con_start` .2 and `w_con` .1, -4.1 with .6 and 1, -1.0 [-2.0, -0.0] with .6 and .1, the
values here.
"""

from __future__ import annotations

from typing import Any

from harness.api.spec import Preset
from methods.parts.sizes import sized_preset

SMALL: dict[str, Any] = {"con_start": 0.6, "w_con": 0.1}
"""Maps that are stretched to 1 look confident from the first step on, trained or not (fsae.md 2.6): in hundreds of
steps the card's weight makes the network agree with such labels before it has learned the classes."""
SHAPES: dict[str, Any] = {"n_strong_augs": 2, "jitter_hue": 0.02}
"""Colours are cues on `shapes`."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The knobs of one dataset family and tier, at the sizes of `cam`; there is one variant."""
    small = tier != "paper" or family == "shapes"
    knobs = {**(SMALL if small else {}), **(SHAPES if family == "shapes" else {})}
    return sized_preset(family, tier, knobs, smoke_iterations=140, lab_iterations=300, shapes_smoke=100)
