"""`fsr`: Progressive Feature Self-Reinforcement (AAAI 2024). Defaults are the card's values for VOC,
fsr.md section 3."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import Problem
from harness.spec import MethodSpec, knob
from methods.parts.knobs import TagSegmenterKnobs, between, not_negative, ordered, positive


@dataclass(frozen=True, kw_only=True)
class FsrConfig(TagSegmenterKnobs):
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
    w_cls: float = knob(1.0, "weight of the classification losses", source="fsr.md 2.5, code")
    w_class: float = knob(0.1, "weight of L_class (cer.FSR)", source="fsr.md 2.5, code")
    w_patch: float = knob(0.1, "weight of L_patch (unc.FSR)", source="fsr.md 2.5, code")
    w_ptc: float = knob(0.2, "weight of the token contrast", source="fsr.md 2.5, code")
    w_seg: float = knob(0.1, "weight of the segmentation loss", source="fsr.md 2.5, code")
    ptc_start: float = knob(
        0.0, "the token contrast starts here; COCO .15", unit="share of T", source="fsr.md 2.5, code"
    )
    seg_start: float = knob(
        0.1, "the segmentation loss starts here", unit="share of T", source="fsr.md 2.5, code: 2000 of 20000"
    )
    tau_student: float = knob(0.1, "temperature of the student", source="fsr.md 2.5, code")
    tau_teacher: float = knob(0.07, "temperature of the teacher after its rise", source="fsr.md 2.5, code")
    tau_teacher_start: float = knob(0.04, "temperature of the teacher at the first step", source="fsr.md 2.5, code")
    tau_rise: float = knob(
        0.125, "the teacher's temperature rises until here", unit="share of T", source="fsr.md 2.5, code"
    )
    teacher_momentum: float = knob(
        0.9995, "EMA momentum at the first step, rising to 1", source="fsr.md 2.6, code", fit="ema"
    )
    centre_momentum: float = knob(0.9, "EMA momentum of the two centres", source="fsr.md 2.5, code", fit="ema")
    card_iterations: int = knob(20000, "T that the momenta are meant for; COCO 80000", unit="steps", source="fsr.md 3")
    aggregation_blocks: int = knob(2, "cross-attention blocks of the class vector", source="fsr.md 2.2, paper")
    aux_block: int = knob(
        10,
        "block that feeds the auxiliary head, of 12; fitted by design section 4 e",
        unit="1-based block",
        source="fsr.md 2.2, code",
    )
    projector_hidden: int = knob(
        2048, "hidden width of the projector", unit="channels", source="operators.md A10", fit="width"
    )
    projector_bottleneck: int = knob(
        256, "bottleneck of the projector", unit="channels", source="operators.md A10", fit="width"
    )
    projector_out: int = knob(4096, "prototypes K", source="fsr.md 3, code", fit="width")
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
        for name in ("w_cls", "w_class", "w_patch", "w_ptc", "w_seg"):
            found += not_negative(name, getattr(self, name))
        for name in (
            "random_phase",
            "ptc_start",
            "seg_start",
            "tau_rise",
            "teacher_momentum",
            "centre_momentum",
        ):
            found += between(name, getattr(self, name), 0, 1)
        for name in ("tau_student", "tau_teacher", "tau_teacher_start"):
            found += positive(name, getattr(self, name))
        found += ordered("tau_teacher", self.tau_teacher, "tau_student", self.tau_student)
        for name in (
            "mask_block",
            "card_iterations",
            "aggregation_blocks",
            "projector_hidden",
            "projector_bottleneck",
            "projector_out",
        ):
            found += between(name, getattr(self, name), 1, float("inf"), open_high=True)
        return found + between("aux_block", self.aux_block, 1, 12)


METHOD = MethodSpec(
    name="fsr",
    config=FsrConfig,
    preset="methods.fsr.presets:preset",
    build="methods.fsr.method:build",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="FSR: Progressive Feature Self-Reinforcement, AAAI 2024",
    variants=("default", "released"),
    version=1,
    uses=(
        "methods.parts.backbones",
        "methods.parts.cam",
        "methods.parts.decoders",
        "methods.parts.distillation",
        "methods.parts.losses",
        "methods.parts.masking",
        "methods.parts.par",
        "methods.parts.pixels",
        "methods.parts.projector",
        "methods.parts.pseudo",
        "methods.parts.relations",
        "methods.parts.schedules",
        "methods.parts.shapes_nets",
        "methods.parts.single_stage",
        "methods.parts.teacher",
        "methods.parts.views",
        "methods.parts.vit_segmenter",
    ),
)
