"""Presets of `agmm` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.spec import Preset
from methods.parts.bases.sparse_knobs import sparse_preset

RELEASED: dict[str, Any] = {
    "imagenet_normalisation": True,
    "keep_labels": False,
    "literal_corners": True,
    "sep_pool": "sum",
}
"""agmm.md sections 2.3, 6 and 7: how the published code differs where scores can move."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    sized = sparse_preset(family, tier)
    knobs = {**sized.knobs, **(RELEASED if variant == "released" else {})}
    return dataclasses.replace(sized, knobs=knobs)
