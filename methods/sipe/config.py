"""`sipe`: image-specific prototypes (CVPR 2022). Defaults are the card's for VOC, sipe.md sections 2, 3 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.recipe_knobs import MAPS, RecipeKnobs
from methods.parts.bases.segmenter_knobs import MaskSegmenterKnobs
from methods.parts.knobs import WIDEST, between, list_of, not_negative, one_of

FEATURES = ("x4", "H")
FACTOR_AT = ("iou", "map")
STOPS = ("none", "cam", "is_cam")
WRITTEN = ("is_cam", "cam")
MEANS = ("all", "present")
STAGES = (1, 2, 3, 4)
SEEN = ("train", "write-cams")
"""Stages that look for seeds."""


@dataclass(frozen=True, kw_only=True)
class SipeConfig(RecipeKnobs, MaskSegmenterKnobs):
    """Classifier with image-specific prototypes, confident labels by its own background, boundary network, walk,
    segmenter."""

    clip_norm: float = knob(
        1.0, "largest norm of the gradient; 0 leaves it alone", source="sipe.md 2.3, code", stage="train"
    )
    rw_power: float = knob(1.5, "exponent of the maps before the walk", source="sipe.md 2.5, code", stage="masks")
    w_gsc: float = knob(1.0, "weight of the consistency of CAM and IS-CAM", source="sipe.md 2.3, code", stage="train")
    gsc_start: float = knob(
        0.0, "the consistency starts here", unit="share of T", source="sipe.md 2.3, code", stage="train"
    )
    gsc_mean: str = knob(
        "all", f"labels that the consistency averages: {', '.join(MEANS)}", source="sipe.md 2.3, code", stage="train"
    )
    gsc_stop: str = knob(
        "none", f"side that gets no gradient: {', '.join(STOPS)}", source="sipe.md 2.3, code", stage="train"
    )
    background_factor: float = knob(0.5, "weakens the background among seeds", source="sipe.md 2.2, code", stage=SEEN)
    factor_at: str = knob(
        "iou",
        f"what background_factor weakens: {', '.join(FACTOR_AT)}",
        source="sipe.md 3: the map in the paper",
        stage=SEEN,
    )
    seeds_train: str = knob(
        "x4", f"features of seeds in training: {', '.join(FEATURES)}", source="sipe.md 2.2, code", stage="train"
    )
    seeds_infer: str = knob(
        "H", f"features of seeds of written maps: {', '.join(FEATURES)}", source="sipe.md 2.4, code", stage="write-cams"
    )
    mask_cam: bool = knob(
        False,
        "absent classes leave the CAM of written maps",
        unit="bool",
        source="sipe.md 2.4, code",
        stage="write-cams",
    )
    present_background: bool = knob(
        False,
        "the background map is made of present classes alone",
        unit="bool",
        source="sipe.md 7.3: of all",
        stage=SEEN,
    )
    side_dims: tuple[int, ...] = knob(
        (128, 128, 256, 256),
        "widths of the side convolutions",
        unit="channels",
        source="sipe.md 2.2, code",
        stage="train",
    )
    levels: tuple[int, ...] = knob(
        STAGES, "stages whose features make prototypes", source="sipe.md 2.2, code", stage="train"
    )
    maps: str = knob(
        "is_cam",
        f"maps that are written and scored: {', '.join(WRITTEN)}",
        source="sipe.md 5, table 4",
        stage=("write-cams", *MAPS),
    )
    cam_background: float = knob(
        0.15, "background score of plain CAMs", source="irn.md 2.2: the row of plain CAMs", stage=MAPS
    )
    label_factor: float = knob(
        0.5, "weakens the background for labels that are unsure", source="sipe.md 2.5, code", stage=MAPS
    )

    def problems(self) -> list[Problem]:
        """Rules on seeds, consistency and levels."""
        found = [
            *super().problems(),
            *not_negative("w_gsc", self.w_gsc),
            *between("gsc_start", self.gsc_start, 0, 1),
            *between("background_factor", self.background_factor, 0, 1),
            *between("label_factor", self.label_factor, 0, 1),
            *between("cam_background", self.cam_background, 0, 1, open_low=True),
            *one_of("gsc_mean", self.gsc_mean, MEANS),
            *one_of("gsc_stop", self.gsc_stop, STOPS),
            *one_of("factor_at", self.factor_at, FACTOR_AT),
            *one_of("seeds_train", self.seeds_train, FEATURES),
            *one_of("seeds_infer", self.seeds_infer, FEATURES),
            *one_of("maps", self.maps, WRITTEN),
        ]
        if len(self.side_dims) != len(STAGES) or list_of("side_dims", self.side_dims, 1, WIDEST):
            found.append(Problem("side_dims", f"{self.side_dims}", f"{len(STAGES)} widths in [1,{WIDEST}]"))
        if not self.levels or set(self.levels) - set(STAGES) or len(set(self.levels)) != len(self.levels):
            found.append(Problem("levels", f"{self.levels}", f"some of {', '.join(map(str, STAGES))}, each once"))
        return found


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "base": {"w_gsc": 0.0, "maps": "cam"},
    "no_gsc": {"w_gsc": 0.0},
    "no_walk": {"refine": "none"},
    "alpha_map": {"factor_at": "map"},
    "seeds_x4": {"seeds_infer": "x4"},
    "mask_cam": {"mask_cam": True},
    "present_bg": {"present_background": True},
}
"""The plain CAM of the same network; prototypes without the consistency (side convolutions then keep their start);
masks of maps that nothing walked; the paper's background factor; three ways in which published training and maps
differ."""

METHOD = MethodSpec(
    name="sipe",
    config=SipeConfig,
    preset="methods.sipe.presets:preset",
    build="methods.sipe.method:build",
    recipe="methods.sipe.recipe:recipe",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="SIPE: CAMs of image-specific prototypes, CVPR 2022, walked along boundaries, and a segmenter on their masks",
    variants=("default", "released"),
    ablations=ABLATIONS,
    tables="methods.sipe.tables:PAPER",
    version=1,
)
