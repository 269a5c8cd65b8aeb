"""Presets of `gatedcrf` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.spec import Preset
from methods.parts.bases.sparse_knobs import sparse_preset

RELEASED: dict[str, Any] = {"imagenet_normalisation": True, "keep_labels": False, "strong_colour": False}
RELEASED_PAPER: dict[str, Any] = {
    "lr_backbone": 0.007,
    "lr_mult_head": 1.0,
    "output_stride": 16,
    "rates": (6, 12, 18),
    "multi_grid": False,
}
RELEASED_SIZES: dict[str, Any] = {
    "backbone": "resnet34",
    "crop": 256,
    "batch": 48,
    "group": 48,
    "iterations": 90000,
    "card_iterations": 90000,
}
"""sparse_baselines.md 3.2: optimiser, network and sizes of the published code."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    sized = sparse_preset(family, tier)
    if variant == "default":
        return sized
    knobs = {**sized.knobs, **RELEASED}
    if family == "shapes" or tier != "paper":
        return dataclasses.replace(sized, knobs=knobs)
    return dataclasses.replace(sized, **RELEASED_SIZES, knobs=knobs | RELEASED_PAPER)
