"""`fsr`: Progressive Feature Self-Reinforcement (AAAI 2024). Defaults are the card's values for VOC,
fsr.md section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.knobs import (
    AuxSegmenterKnobs,
    ProjectorKnobs,
    between,
    blocks,
    counted,
    each,
    one_of,
    ordered,
    positive,
    share,
    steps,
)
from methods.parts.views.device_knobs import DeviceViewKnobs

CHOICES: dict[str, tuple[str, ...]] = {
    "mask_view": ("view1", "view2"),
    "mask_cam": ("aux", "top"),
    "selection": ("random", "uncertain", "cam_strict", "edge_strict"),
    "aggregation": ("mca", "gap", "gmp"),
    "augmentation": ("base", "blur", "solarize", "autoaugment"),
}
"""Knobs that are words, and their legal words."""


@dataclass(frozen=True, kw_only=True)
class FsrConfig(AuxSegmenterKnobs, ProjectorKnobs, DeviceViewKnobs):
    """Classification, token contrast and segmentation, reinforced by a teacher on masked uncertain tokens."""

    mask_ratio: float = knob(0.4, "share of the cells of view 2 that is masked", source="fsr.md 2.3, paper")
    mask_low: float = knob(0.2, "cells scoring above this and below mask_high are uncertain", source="fsr.md 2.3, code")
    mask_high: float = knob(0.7, "upper end of uncertainty", source="fsr.md 2.3, code")
    mask_block: int = knob(
        4,
        "side of a masked cell, fitted by design section 4 d",
        unit="tokens on a 28x28 grid",
        source="fsr.md 2.3, code: 64 px",
    )
    random_phase: float = knob(
        0.2, "cells are masked at random until here", unit="share of T", source="fsr.md 2.3, code"
    )
    mask_floor: bool = knob(
        False, "round the number of masked cells down instead of up", unit="bool", source='fsr.md "Paper vs code" 3'
    )
    mask_view: str = knob("view2", "view that is masked: view1 (paper) or view2", source='fsr.md "Paper vs code" 1')
    mask_cam: str = knob("aux", "classifier whose CAM selects: aux or top (paper)", source='fsr.md "Paper vs code" 2')
    mask_single_scale: bool = knob(
        False,
        "select by the plain CAM at token size, without cam_scales and mirror",
        unit="bool",
        source='fsr.md "Paper vs code" 2: true in the paper',
    )
    selection: str = knob(
        "uncertain",
        "random, uncertain, or without a ratio: cam_strict (tokens between the thresholds), edge_strict (on edges)",
        source="fsr.md 5, Table 3",
    )
    aggregation: str = knob(
        "mca", "class token: mca (cross-attention), gap (mean) or gmp (maximum)", source="fsr.md 5, Table 4"
    )
    aggregate_unmasked: bool = knob(
        False,
        "aggregate unmasked tokens only",
        unit="bool",
        source='fsr.md "Paper vs code" 4: true in the paper',
    )
    augmentation: str = knob(
        "base", "colours of the views: base, blur, solarize or autoaugment", source="fsr.md 2.1, Table 5"
    )
    w_class: float = knob(0.1, "weight of L_class (cer.FSR)", source="fsr.md 2.5, code")
    w_patch: float = knob(0.1, "weight of L_patch (unc.FSR)", source="fsr.md 2.5, code")
    tau_student: float = knob(0.1, "temperature of the student", source="fsr.md 2.5, code")
    tau_teacher: float = knob(0.07, "temperature of the teacher after its rise", source="fsr.md 2.5, code")
    tau_teacher_start: float = knob(0.04, "temperature of the teacher at the first step", source="fsr.md 2.5, code")
    tau_rise: float = knob(
        0.125, "the teacher's temperature rises until here", unit="share of T", source="fsr.md 2.5, code"
    )
    teacher_momentum: float = knob(
        0.9995, "EMA momentum at the first step, rising to 1", source="fsr.md 2.6, code", fit="ema"
    )
    encoder_ema: bool = knob(
        True,
        "the teacher averages all parameters; false: its projector only, the rest equals the student's",
        unit="bool",
        source='fsr.md "Paper vs code" 5: false in the paper',
    )
    centre_momentum: float = knob(0.9, "EMA momentum of the two centres", source="fsr.md 2.5, code", fit="ema")
    card_iterations: int = knob(20000, "T that the momenta are meant for; COCO 80000", unit="steps", source="fsr.md 3")
    aggregation_blocks: int = knob(2, "cross-attention blocks of the class vector", source="fsr.md 2.2, paper")
    reuse_cam: bool = knob(
        True,
        "the training forward's map serves scale 1 of view 1, and other CAM passes run in "
        "eval mode; false: all CAM passes anew in train mode, as published",
        unit="bool",
        source="fsr.md 7.2",
    )

    def problems(self) -> list[Problem]:
        """Rules on masks, weights, temperatures and momenta."""
        found = super().problems()
        found += between("mask_ratio", self.mask_ratio, 0, 1, open_low=True, open_high=True)
        found += between("mask_low", self.mask_low, 0, 1) + between("mask_high", self.mask_high, 0, 1)
        found += ordered("mask_low", self.mask_low, "mask_high", self.mask_high)
        found += each(share, self, ("random_phase", "tau_rise", "teacher_momentum", "centre_momentum"))
        found += each(positive, self, ("tau_student", "tau_teacher", "tau_teacher_start"))
        found += ordered("tau_teacher", self.tau_teacher, "tau_student", self.tau_student)
        found += [
            *counted("mask_block", self.mask_block),
            *steps("card_iterations", self.card_iterations),
            *blocks("aggregation_blocks", self.aggregation_blocks),
        ]
        for name, words in CHOICES.items():
            found += one_of(name, getattr(self, name), words)
        if self.device_views and self.augmentation == "autoaugment":
            fix = "device_views=false, or augmentation=base, blur or solarize"
            found.append(Problem("device_views", "autoaugment is made on the host alone", fix))
        return found


UNC: dict[str, Any] = {"w_class": 0.0}
CER: dict[str, Any] = {"w_patch": 0.0}
ABLATIONS: dict[str, dict[str, Any]] = {
    "none": UNC | CER,
    "unc": UNC,
    "cer": CER,
    "cer_gap": CER | {"aggregation": "gap"},
    "cer_gmp": CER | {"aggregation": "gmp"},
    "both": {},
    **{
        f"unc_{selection}_{percent}": UNC | {"selection": selection, "mask_ratio": percent / 100}
        for selection in ("random", "uncertain")
        for percent in (10, 20, 30, 40, 50)
    },
    "unc_cam_strict": UNC | {"selection": "cam_strict"},
    "unc_edge_strict": UNC | {"selection": "edge_strict"},
    **{name: {"augmentation": name} for name in CHOICES["augmentation"]},
}
"""Rows of the paper's Tables 3, 4 and 5 as overrides of any variant."""

METHOD = MethodSpec(
    name="fsr",
    config=FsrConfig,
    preset="methods.fsr.presets:preset",
    build="methods.fsr.method:build",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="FSR: Progressive Feature Self-Reinforcement, AAAI 2024",
    variants=("default", "released", "paper"),
    ablations=ABLATIONS,
    published="methods.fsr.published:published",
    tables="methods.fsr.tables:PAPER",
    version=2,
)
