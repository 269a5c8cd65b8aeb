"""`cam`: the plain CAM baseline. Defaults are those of fsr.md."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.knobs import ClassTokenKnobs, TagSegmenterKnobs, between, not_negative
from methods.parts.views.device_knobs import DeviceViewKnobs


@dataclass(frozen=True, kw_only=True)
class CamConfig(TagSegmenterKnobs, ClassTokenKnobs, DeviceViewKnobs):
    """Classification on tags, and a decoder that learns from the classifier's own refined CAM."""

    w_seg: float = knob(0.1, "weight of the segmentation loss", source="fsr.md 2.5, code")
    seg_start: float = knob(
        0.1, "the segmentation loss starts here", unit="share of T", source="fsr.md 2.5, code: 2000 of 20000"
    )

    def problems(self) -> list[Problem]:
        """Rules on the losses."""
        return [
            *super().problems(),
            *not_negative("w_seg", self.w_seg),
            *between("seg_start", self.seg_start, 0, 1),
        ]


METHOD = MethodSpec(
    name="cam",
    config=CamConfig,
    preset="methods.cam.presets:preset",
    build="methods.cam.method:build",
    recipe="harness.api.recipe:train_and_write_maps",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="CAM baseline: max-pooled ViT classifier, PAR pseudo masks, LargeFOV decoder",
    ablations={"class_token": {"class_token": True}},
    version=1,
)
