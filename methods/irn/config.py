"""`irn`: inter-pixel relations (CVPR 2019). Defaults are the card's for VOC, irn.md sections 2, 3 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.recipe_knobs import MAPS, RecipeKnobs, confident
from methods.parts.bases.segmenter_knobs import MaskSegmenterKnobs
from methods.parts.knobs import between


@dataclass(frozen=True, kw_only=True)
class IrnConfig(RecipeKnobs, MaskSegmenterKnobs):
    """Classifier, CAMs, confident labels by two background scores, boundary network, random walk, segmenter."""

    conf_fg: float = knob(
        0.3, "background score that a confident class beats; COCO .35", source="irn.md 2.3, code", stage=MAPS
    )
    conf_bg: float = knob(
        0.05,
        "background score that confident background beats all with; COCO .1",
        source="irn.md 2.3, code",
        stage=MAPS,
    )
    mask_background: float = knob(0.25, "background score of walked maps", source="irn.md 2.6, code", stage="masks")
    cam_background: float = knob(
        0.15, "background score of maps that nothing walked", source="irn.md 2.2, code", stage="masks"
    )

    def problems(self) -> list[Problem]:
        """Rules on background scores."""
        return [
            *super().problems(),
            *confident("conf_bg", self.conf_bg, "conf_fg", self.conf_fg),
            *between("mask_background", self.mask_background, 0, 1),
            *between("cam_background", self.cam_background, 0, 1),
        ]


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "no_walk": {"refine": "none"},
    "no_crf": {"label_crf": False},
    "dp": {"displacement": True},
}
"""Masks of plain CAMs, confident labels without their CRF, and the displacement branch that the published code trains
beside the boundaries."""

METHOD = MethodSpec(
    name="irn",
    config=IrnConfig,
    preset="methods.irn.presets:preset",
    build="methods.irn.method:build",
    recipe="methods.irn.recipe:recipe",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="IRN: CAMs walked along learned class boundaries, CVPR 2019, and a segmenter on their masks",
    variants=("default", "released"),
    ablations=ABLATIONS,
    version=2,
)
