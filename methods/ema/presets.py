"""Presets of `ema` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.spec import Preset
from methods.parts.bases.sparse_knobs import sparse_preset

COLOURS: dict[str, Any] = {"jitter_probability": 0.8, "grey_probability": 0.2, "blur_probability": 0.5}
"""The student's view of sparse_baselines.md 2.3; without AGMM's shift of all levels."""
SHAPES: dict[str, Any] = {"jitter_probability": 0.8, "blur_probability": 0.5, "blur_radius_max": 0.5}
"""Colours are cues on `shapes`."""
LAB: dict[str, Any] = {**COLOURS, "blur_radius_max": 0.7}
RELEASED: dict[str, Any] = {
    "imagenet_normalisation": True,
    "keep_labels": False,
    "target": "kl_mean",
    "mask": "share",
    "count_padding": True,
    "teacher_training": True,
    "teacher_restart": 0.01,
    "scale_max": 1.2,
    "jitter_probability": 0.0,
    "grey_probability": 0.0,
    "blur_radius_max": 1.5,
}
"""sparse_baselines.md 2.1: loss, teacher and scales of Rewis3d's 2-D branch; an epoch is a hundredth of its run."""
RELEASED_OPTIMISER: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "poly",
    "power": 1.0,
    "lr_backbone": 5e-5,
    "lr_mult_head": 1.0,
    "weight_decay": 1e-8,
}


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    sized = sparse_preset(family, tier)
    paper = tier == "paper" and family != "shapes"
    knobs: dict[str, Any] = dict(sized.knobs)
    # Cityscapes has no colours in AGMM's frame; a student without them would see what its teacher sees.
    knobs |= {"strong_colour": True, "shift_probability": 0.0}
    knobs |= COLOURS if paper else SHAPES if family == "shapes" else LAB
    if variant == "released":
        knobs |= RELEASED | (RELEASED_OPTIMISER if paper else {})
    return dataclasses.replace(sized, knobs=knobs)
