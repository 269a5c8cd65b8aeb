"""Presets of `full` by dataset family and tier; no score has been recorded for them yet."""

from __future__ import annotations

from harness.api.spec import Preset
from methods.parts.sizes import supervised_preset


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    return supervised_preset(family, tier)
