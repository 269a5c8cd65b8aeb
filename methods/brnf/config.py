"""`brnf`: Bias-Resilient WSSS using Normalizing Flows (ICCV 2025), a plug-in whose base gives seeds (brnf.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.spec import MethodSpec
from methods.brnf.knobs import BrnfConfig

GMM: Mapping[str, Any] = {"w_cal": 0.0}
FSCL: Mapping[str, Any] = {"w_nce": 0.0}
BSDNF: Mapping[str, Any] = {"gate": False}
"""What turns each component off."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "base": {**GMM, **FSCL, **BSDNF},
    "only_gmm": {**FSCL, **BSDNF},
    "only_fscl": {**GMM, **BSDNF},
    "only_bsdnf": {**GMM, **FSCL},
    "no_gmm": GMM,
    "no_fscl": FSCL,
    "no_bsdnf": BSDNF,
}
"""The component grid of brnf.md 6. What is left of `base` is SIPE's network guided by the base's seeds as they are."""

METHOD = MethodSpec(
    name="brnf",
    config=BrnfConfig,
    preset="methods.brnf.presets:preset",
    build="methods.brnf.method:build",
    recipe="methods.brnf.recipe:recipe",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="BRNF: seeds, pixel densities by normalizing flows, ICCV 2025, on a base that makes CAMs",
    ablations=ABLATIONS,
    tables="methods.brnf.tables:PAPER",
    plugin=True,
    bases=("cam", "irn", "sipe"),
    version=1,
)
