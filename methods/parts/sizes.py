"""Sizes of work of the single-stage ViT methods that follow fsr.md, by dataset family and tier. No torch
here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset

VIT_B = "vit_base_patch16_224.orig_in21k_ft_in1k"
"""The timm weights equal to the checkpoint that the papers start from (fsr.md section 1)."""
VIT_TINY = "vit_tiny_patch16_224"
SHAPES_VIT = "shapes_vit"
SHAPES_DECODER = "deeplabv3plus"
"""Its stride-4 skip brings `full` from 31 to 52 mIoU in the same 160 steps: objects are small on `shapes`."""
CARD_ITERATIONS = {"voc": 20000, "coco": 80000}
"""T of the card, by family."""
SPARSE_SMOKE = 80
"""Steps of the methods of sparse labels at tier smoke."""
SPARSE_SHAPES_SMOKE = 60
"""On `shapes`: a run of the slowest, `ema`, takes less than 40 core-seconds."""
SHAPES_CROP = {"smoke": 80, "lab": 96, "paper": 96}
"""Pixels, by tier. At smoke two thirds of the cost of 96, and scores within a point."""
CAM_THRESHOLD = {"voc": 0.5, "coco": 0.45}
PSEUDO_HIGH = {"voc": 0.7, "coco": 0.65}
WARMUP_STEPS = 1500
LATTICE = 0.55
"""Share of the exact sum that the published filter of the dense energy returns (operators.md A8: .47-.63)."""
LATTICE_W_REG = 0.05 * LATTICE
"""Weight of our dense energy that is worth the published .05."""
LAB_KNOBS: dict[str, Any] = {"lr": 4e-5, "head_lr_scale": 20.0, "warmup": 0.05, "crop_area_min": 0.6}
"""Hundreds of steps on a ViT-Tiny: slow encoder, fast heads, crops that seldom lose the object."""
LAB_SUPERVISED: dict[str, Any] = {"lr": 1e-4, "head_lr_scale": 10.0}
"""Labels of pixels bear a faster encoder than tags do."""
SHAPES_KNOBS: dict[str, Any] = {
    "lr": 7e-4,
    "head_lr_scale": 5.0,
    "warmup": 0.05,
    "crop_area_min": 0.6,
    "drop_path": 0.0,
    "jitter_brightness": 0.15,
    "jitter_contrast": 0.1,
    "jitter_saturation": 0.1,
    "jitter_hue": 0.02,
}
"""Colours are cues on `shapes`, and its ViT has three blocks: little jitter, no stochastic depth."""

LAB_PSEUDO: dict[str, Any] = {"seg_start": 0.4, "pseudo_low": 0.15, "pseudo_high": 0.5}
"""After hundreds of steps CAMs still have narrow peaks: the card's thresholds call nearly all pixels background, and
a decoder that starts on such labels drags the CAMs down with it."""
SHAPES_PSEUDO: dict[str, Any] = {"seg_start": 0.3, "par_dilations": (1, 2, 4), "par_iterations": 3}
"""A decoder that starts earlier, or weighs more, drags the CAMs of so short a run down with it."""
SHAPES_SMOKE: dict[str, Any] = {
    "head_lr_scale": 10.0,
    "pseudo_low": 0.35,
    "pseudo_high": 0.65,
    "seg_start": 0.4,
    "w_seg": 0.3,
}
"""Of tags at tier smoke, as far as all search spaces reach: heads of twice the rate, labels that leave less of an image
out, and a decoder that starts on later and better ones with more weight."""


def small_knobs(family: str, tier: str, *, tags: bool) -> dict[str, Any]:
    """Knobs of `shapes` and of tiers smoke and lab; empty at the card's size. `tags`: with CAMs and pseudo labels."""
    if family != "shapes" and tier == "paper":
        return {}
    knobs = dict(SHAPES_KNOBS if family == "shapes" else LAB_KNOBS)
    if tags:
        knobs |= {"cam_scales": (1.0,)} | (SHAPES_PSEUDO if family == "shapes" else LAB_PSEUDO)
        knobs |= SHAPES_SMOKE if family == "shapes" and tier == "smoke" else {}
    return knobs


def card_family(family: str) -> str:
    """The family whose card values are taken: coco its own, all others voc's."""
    return family if family in CARD_ITERATIONS else "voc"


def card_knobs(family: str) -> dict[str, Any]:
    """Knobs in which the card's two families differ, for methods with an optimiser and pseudo labels."""
    card = card_family(family)
    return {"pseudo_high": PSEUDO_HIGH[card], "warmup": WARMUP_STEPS / CARD_ITERATIONS[card]}


def sized_preset(
    family: str,
    tier: str,
    knobs: Mapping[str, Any],
    *,
    smoke_iterations: int,
    lab_iterations: int,
    shapes_smoke: int | None = None,
) -> Preset:
    """A preset with the sizes that cam, full and fsr share: crop, batch, backbone, iterations, scoring.

    On `shapes` every tier has its batch of 16 and backbone; lab and paper train on larger crops and 4 and 20 times
    `smoke_iterations`; smoke has `shapes_smoke` of them there, where it is given. Raises ValueError for an unknown
    tier.
    """
    card = card_family(family)
    common: dict[str, Any] = {
        "decoder": SHAPES_DECODER if family == "shapes" else "largefov",
        "card_iterations": CARD_ITERATIONS[card],
        "cam_threshold": CAM_THRESHOLD[card],
        "knobs": dict(knobs),
    }
    if tier not in ("smoke", "lab", "paper"):
        raise ValueError(f"unknown tier {tier!r}")
    if family == "shapes":
        longer = {"smoke": 1, "lab": 4, "paper": 20}[tier]
        repeats: dict[str, Any] = {"trials": 20, "seeds": 3} if tier == "paper" else {}
        return Preset(
            backbone=SHAPES_VIT,
            crop=SHAPES_CROP[tier],
            batch=16,
            group=16,
            iterations=(tier == "smoke" and shapes_smoke) or smoke_iterations * longer,
            **repeats,
            **common,
        )
    if tier == "paper":
        return Preset(
            backbone=VIT_B,
            crop=448,
            batch=8,
            group=2,
            iterations=CARD_ITERATIONS[card],
            inference=PROTOCOLS["fsr"],
            trials=20,
            seeds=3,
            **common,
        )
    if tier == "lab":
        return Preset(backbone=VIT_TINY, crop=160, batch=8, group=8, iterations=lab_iterations, **common)
    return Preset(backbone=VIT_TINY, crop=96, batch=16, group=16, iterations=smoke_iterations, **common)


def supervised_preset(family: str, tier: str, smoke_iterations: int = 160, shapes_smoke: int | None = None) -> Preset:
    """The preset of methods whose one loss is cross-entropy on labelled pixels: sparse labels or masks. Iterations as
    of `sized_preset`."""
    small = small_knobs(family, tier, tags=False)
    if small and family != "shapes":
        small |= LAB_SUPERVISED
    knobs = {"warmup": card_knobs(family)["warmup"], **small}
    return sized_preset(
        family, tier, knobs, smoke_iterations=smoke_iterations, lab_iterations=300, shapes_smoke=shapes_smoke
    )
