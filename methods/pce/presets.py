"""Presets of `pce` by dataset family and tier, those of `full`; no score has been recorded for them yet."""

from __future__ import annotations

from harness.api.spec import Preset
from methods.parts.sizes import SPARSE_SHAPES_SMOKE, SPARSE_SMOKE, supervised_preset


def preset(family: str, tier: str, variant: str) -> Preset:
    """Those of `full`, on `shapes` and at tier smoke as short as the other methods of sparse labels; one variant."""
    return supervised_preset(family, tier, SPARSE_SMOKE, SPARSE_SHAPES_SMOKE)
