"""Presets of `irn` by dataset family, tier and variant; scores of tier smoke: docs/results.md."""

from __future__ import annotations

from typing import Any

from harness.api.spec import Preset
from methods.parts.bases.recipe_presets import is_small, recipe_preset
from methods.parts.sizes import card_family

STEPS = {"voc": (3305, 990), "coco": (25865, 7758)}
"""Of the classifier, 5 epochs in batches of 16, and of the boundary network, 3 in batches of 32, last partial batches
dropped (irn.md 3): 10,582 and 82,783 images."""
CAM_THRESHOLD = 0.15
COCO: dict[str, Any] = {"refine": "crf", "conf_fg": 0.35, "conf_bg": 0.1}
"""The boundary network is skipped for its cost and the labels after the CRF are the masks (sipe.md 2.5); thresholds of
public code (irn.md 3, COCO)."""
RELEASED: dict[str, Any] = {"imagenet_normalisation": True, "displacement": True}
"""What the published code does and scores of semantic masks do not need (irn.md 1, 2.4; operators.md A1)."""
LAB: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "cam_scales": (1.0, 0.5, 1.5)}
SHAPES: dict[str, Any] = {"lr": 0.02, "cam_scales": (1.0,), "label_crf": False, "rw_steps": 4}
"""Pictures of 96 pixels are seen at one scale, 16 steps cross an object of theirs, and labels need no extra that is not
installed. A step of the classifier, most of it frozen, costs a seventh of `cam`'s: smoke has twice as many."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    card = card_family(family)
    knobs: dict[str, Any] = {**(COCO if card == "coco" else {}), **(RELEASED if variant == "released" else {})}
    if is_small(family, tier):
        knobs |= SHAPES if family == "shapes" else LAB
    return recipe_preset(
        family,
        tier,
        knobs,
        steps=STEPS,
        smoke_iterations=80,
        shapes_smoke=160,
        card_iterations=STEPS[card][0],
        cam_threshold=CAM_THRESHOLD,
    )
