"""Knobs of `irn`. Defaults are the card's values for VOC, irn.md sections 2, 3 and 6. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import knob
from harness.errors import Problem
from methods.parts.bases.recipe_knobs import MAPS, RecipeKnobs, confident
from methods.parts.knobs import between


@dataclass(frozen=True, kw_only=True)
class IrnConfig(RecipeKnobs):
    """Classifier, CAMs, confident labels by two background scores, boundary network, random walk."""

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
