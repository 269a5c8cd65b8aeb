"""`toco`: Token Contrast (CVPR 2023). Defaults are the card's values for VOC, toco.md sections 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.inference import LARGEST_SCALE
from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.power_knobs import PowerKnobs
from methods.parts.knobs import ProjectorKnobs, between, counted, each, positive, share

PROBABILITIES = ("grey_probability", "blur_view1", "blur_view2", "blur_local", "solarise_probability")


@dataclass(frozen=True, kw_only=True)
class TocoConfig(PowerKnobs, ProjectorKnobs):
    """Classification on two blocks, contrast of patch tokens and of class tokens, segmentation and dense energy."""

    jitter_probability: float = knob(0.8, "colour jitter", unit="probability", source="toco.md 2.1, code")
    crop_area_min: float = knob(
        0.4, "smallest area of view 2's random crop", unit="share of the image", source="toco.md 2.1, code"
    )
    scale_min: float = knob(0.5, "smallest factor of view 1's size", source="operators.md A13")
    scale_max: float = knob(2.0, "largest factor of view 1's size", source="operators.md A13")
    scale_to_crop: bool = knob(
        False,
        "factors count from the size that has the crop's share of the longer side as on VOC (448 of 500), "
        "for crops that were not chosen for the images",
        unit="bool",
        source="-",
    )
    grey_probability: float = knob(0.2, "grey view", unit="probability", source="toco.md 2.1, code")
    blur_view1: float = knob(1.0, "blur of view 1", unit="probability", source="toco.md 2.1, code")
    blur_view2: float = knob(0.1, "blur of view 2", unit="probability", source="toco.md 2.1, code")
    blur_local: float = knob(
        0.5, "blur of what local crops are cut from", unit="probability", source="toco.md 2.1, code"
    )
    blur_radius_min: float = knob(0.1, "smallest radius of a blur", unit="px", source="toco.md 2.1, code")
    blur_radius_max: float = knob(2.0, "largest radius of a blur", unit="px", source="toco.md 2.1, code")
    solarise_probability: float = knob(0.2, "solarised view 2", unit="probability", source="toco.md 2.1, code")
    separate_flips: bool = knob(
        False,
        "view 1 and local crops are mirrored apart, and the box of real pixels not at all, as published",
        unit="bool",
        source="toco.md 7.1",
    )
    w_aux: float = knob(1.0, "weight of the auxiliary classifier's loss", source="toco.md 2.6, code")
    w_ctc: float = knob(0.5, "weight of the class-token contrast; 0 spares its crops", source="toco.md 2.7, code")
    ctc_start: float = knob(
        0.0, "the class-token contrast starts after this; COCO .15", unit="share of T", source="toco.md 2.7, code"
    )
    top_start: float = knob(
        0.0,
        "until here the auxiliary CAM makes the pseudo labels, then the top CAM; COCO .15",
        unit="share of T",
        source="toco.md 2.7, code",
    )
    local_crops: int = knob(8, "local crops of an image", source="toco.md 2.4, code")
    local_size: int = knob(
        6,
        "side of a local crop, fitted by design section 4 d",
        unit="tokens on a 28x28 grid",
        source="toco.md 2.4, code: 96 px",
    )
    negative_limit: float = knob(
        0.2, "crops whose mean certainty in {0,1,2} is at most this show no object", source="toco.md 2.4, code"
    )
    ctc_tau: float = knob(0.5, "temperature of the class-token contrast; COCO 1", source="toco.md 2.5, code")
    ctc_constant_term: bool = knob(
        True, "the published extra repulsion, once a view", unit="bool", source="toco.md 2.5 and 7.4"
    )
    head_momentum: float = knob(
        0.9, "EMA momentum of the teacher's projection head, the same at every step", source="toco.md 2.5, code"
    )
    projector_out: int = knob(1024, "prototypes K", source="operators.md A10, code", fit="width")
    literal_token_box: bool = knob(
        False,
        "the box of real pixels cuts token labels by its pixel coordinates, as published",
        unit="bool",
        source="toco.md 7.0",
    )
    kaiming_decoder: bool = knob(
        True,
        "the decoder starts as its initialiser says, which the published code never calls",
        unit="bool",
        source="toco.md 7.7, operators.md A9",
    )

    def problems(self) -> list[Problem]:
        """Rules on views, weights, starts and crops."""
        found = super().problems()
        found += each(share, self, (*PROBABILITIES, "head_momentum"))
        found += each(positive, self, ("ctc_tau", "scale_min", "blur_radius_min"))
        found += between("scale_max", self.scale_max, 0, LARGEST_SCALE, open_low=True)
        found += between("blur_radius_max", self.blur_radius_max, 0, 100, open_low=True)
        for low, high in (("scale_min", "scale_max"), ("blur_radius_min", "blur_radius_max")):
            if getattr(self, low) > getattr(self, high):
                found.append(Problem(low, f"{getattr(self, low):g} is above {high}", f"{low} <= {high}"))
        found += between("negative_limit", self.negative_limit, 0, 2)
        return found + each(counted, self, ("local_crops", "local_size"))


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "no_ptc": {"w_ptc": 0.0},
    "no_ctc": {"w_ctc": 0.0},
    "base": {"w_ptc": 0.0, "w_ctc": 0.0},
    "no_reg": {"w_reg": 0.0},
    "token_box": {"literal_token_box": True},
    "flips": {"separate_flips": True},
    **{f"aux_{block}": {"aux_block": block} for block in (7, 8, 9, 11)},
}
"""Components (toco.md 1, 5: losses and layer) and the published bugs, one by one (toco.md 7.0, 7.1)."""

METHOD = MethodSpec(
    name="toco",
    config=TocoConfig,
    preset="methods.toco.presets:preset",
    build="methods.toco.method:build",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="ToCo: Token Contrast, CVPR 2023",
    variants=("default", "released"),
    ablations=ABLATIONS,
    published="methods.toco.published:key_map",
    version=2,
)
