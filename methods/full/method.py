"""`full`: cross-entropy on true masks."""

from __future__ import annotations

from harness.api.method import BuildInfo
from methods.full.config import FullConfig
from methods.parts.bases.supervised import Supervised


class Full(Supervised):
    """Full supervision. Loss term: `seg`."""

    config: FullConfig


def build(config: FullConfig, info: BuildInfo) -> Full:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Full(config, info)
