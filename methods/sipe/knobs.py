"""Knobs of `sipe`. Defaults are the card's values for VOC, sipe.md sections 2, 3 and 6. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import knob
from harness.errors import Problem
from methods.parts.bases.recipe_knobs import RecipeKnobs
from methods.parts.knobs import between, not_negative

FEATURES = ("x4", "H")
FACTOR_AT = ("iou", "map")
STOPS = ("none", "cam", "is_cam")
MAPS = ("is_cam", "cam")
MEANS = ("all", "present")
STAGES = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class SipeConfig(RecipeKnobs):
    """Classifier with image-specific prototypes, confident labels by its own background, boundary network, walk."""

    clip_norm: float = knob(1.0, "largest norm of the gradient; 0 leaves it alone", source="sipe.md 2.3, code")
    rw_power: float = knob(1.5, "exponent of the maps before the walk", source="sipe.md 2.5, code")
    w_gsc: float = knob(1.0, "weight of the consistency of CAM and IS-CAM", source="sipe.md 2.3, code")
    gsc_start: float = knob(0.0, "the consistency starts here", unit="share of T", source="sipe.md 2.3, code")
    gsc_mean: str = knob("all", f"labels that the consistency averages: {', '.join(MEANS)}", source="sipe.md 2.3, code")
    gsc_stop: str = knob("none", f"side that gets no gradient: {', '.join(STOPS)}", source="sipe.md 2.3, code")
    background_factor: float = knob(0.5, "weakens the background among seeds", source="sipe.md 2.2, code")
    factor_at: str = knob(
        "iou", f"what background_factor weakens: {', '.join(FACTOR_AT)}", source="sipe.md 3: the map in the paper"
    )
    seeds_train: str = knob("x4", f"features of seeds in training: {', '.join(FEATURES)}", source="sipe.md 2.2, code")
    seeds_infer: str = knob(
        "H", f"features of seeds of written maps: {', '.join(FEATURES)}", source="sipe.md 2.4, code"
    )
    mask_cam: bool = knob(
        False, "absent classes leave the CAM of written maps", unit="bool", source="sipe.md 2.4, code"
    )
    present_background: bool = knob(
        False, "the background map is made of present classes alone", unit="bool", source="sipe.md 7.3: of all"
    )
    side_dims: tuple[int, ...] = knob(
        (128, 128, 256, 256), "widths of the side convolutions", unit="channels", source="sipe.md 2.2, code"
    )
    levels: tuple[int, ...] = knob(STAGES, "stages whose features make prototypes", source="sipe.md 2.2, code")
    maps: str = knob("is_cam", f"maps that are written and scored: {', '.join(MAPS)}", source="sipe.md 5, table 4")
    cam_background: float = knob(0.15, "background score of plain CAMs", source="irn.md 2.2: the row of plain CAMs")
    label_factor: float = knob(0.5, "weakens the background for labels that are unsure", source="sipe.md 2.5, code")

    def problems(self) -> list[Problem]:
        """Rules on seeds, consistency and levels."""
        found = [
            *super().problems(),
            *not_negative("w_gsc", self.w_gsc),
            *between("gsc_start", self.gsc_start, 0, 1),
            *between("background_factor", self.background_factor, 0, 1),
            *between("label_factor", self.label_factor, 0, 1),
            *between("cam_background", self.cam_background, 0, 1, open_low=True),
        ]
        for name, words in (
            ("gsc_mean", MEANS),
            ("gsc_stop", STOPS),
            ("factor_at", FACTOR_AT),
            ("seeds_train", FEATURES),
            ("seeds_infer", FEATURES),
            ("maps", MAPS),
        ):
            if getattr(self, name) not in words:
                found.append(Problem(name, f"{getattr(self, name)!r} is unknown", f"one of {', '.join(words)}"))
        if len(self.side_dims) != len(STAGES) or min(self.side_dims) < 1:
            found.append(Problem("side_dims", f"{self.side_dims}", f"{len(STAGES)} widths of at least 1"))
        if not self.levels or set(self.levels) - set(STAGES) or len(set(self.levels)) != len(self.levels):
            found.append(Problem("levels", f"{self.levels}", f"some of {', '.join(map(str, STAGES))}, each once"))
        return found
