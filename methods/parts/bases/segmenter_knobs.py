"""Knobs and sizes of the last stage of multi-stage recipes: an ordinary segmenter on pseudo masks. No torch here.

At tier paper it is the field's DeepLabV2 (fsae.md 4); on `shapes` and at tiers smoke and lab it has the sizes and the
optimiser of `full`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.inference import LARGEST_SCALE
from harness.api.spec import MethodConfig, knob
from harness.errors import Problem
from methods.parts.knobs import between, counted, not_negative, one_of, ordered, positive
from methods.parts.sizes import supervised_preset

STAGE = "train-segmenter"
NETWORK = "segmenter"
OPTIMIZERS = ("sgd", "adamw")
ITERATIONS = {"voc": 20000, "coco": 100000}
"""By family, at a batch of 10: fsae.md 4, and public DeepLabV2 code on COCO."""
PAPER: Mapping[str, Any] = {"backbone": "resnet101.tv_in1k", "decoder": "deeplabv2", "crop": 448, "batch": 10}


@dataclass(frozen=True, kw_only=True)
class MaskSegmenterKnobs(MethodConfig):
    """Views and optimiser of the segmenter that learns from the masks of an earlier stage."""

    seg_optimizer: str = knob(
        "sgd",
        "sgd with a power schedule, or adamw with warm-up and half-cosine as `full` has it",
        unit="name",
        source="fsae.md 4; adamw: fsr.md 3",
        stage=STAGE,
    )
    seg_lr: float = knob(1e-3, "learning rate of the segmenter's backbone", source="fsae.md 4", stage=STAGE)
    seg_lr_factor: float = knob(
        1.0, "multiplies seg_lr: what a search varies, as presets have other rates", source="-", stage=STAGE
    )
    seg_head_lr_scale: float = knob(
        10.0, "learning rate of its decoder, as a multiple of seg_lr", source="public DeepLabV2 code", stage=STAGE
    )
    seg_weight_decay: float = knob(
        5e-4,
        "of every parameter with sgd, of those with two or more axes with adamw",
        source="fsae.md 4",
        stage=STAGE,
    )
    seg_momentum: float = knob(0.9, "of sgd", source="public DeepLabV2 code", stage=STAGE)
    seg_power: float = knob(
        0.9, "sgd: learning rate falls as (1 - step/T)^power", source="fsae.md 4: poly .9", stage=STAGE
    )
    seg_warmup: float = knob(
        0.075, "adamw: linear warm-up", unit="share of its steps", source="fsr.md 3: 1500 of 20000", stage=STAGE
    )
    seg_drop_path: float = knob(
        0.0, "stochastic depth of a ViT's last block, linear from 0", unit="probability", source="-", stage=STAGE
    )
    seg_width: int = knob(
        512,
        "channels inside LargeFOV, and at most 256 of them inside DeepLabV3+",
        unit="channels",
        source="operators.md A9",
        fit="width",
        stage=STAGE,
    )
    seg_long_min: float = knob(
        0.56,
        "shortest long side of an image",
        unit="share of the crop",
        source="fsae.md 4: .5 of 500 pixels in 448",
        stage=STAGE,
    )
    seg_long_max: float = knob(
        1.67,
        "longest long side of an image",
        unit="share of the crop",
        source="fsae.md 4: 1.5 of 500 pixels in 448",
        stage=STAGE,
    )
    seg_flip: float = knob(0.5, "horizontal flip", unit="probability", source="public DeepLabV2 code", stage=STAGE)

    def problems(self) -> list[Problem]:
        """Rules on the segmenter's views and optimiser."""
        found = [*super().problems(), *one_of("seg_optimizer", self.seg_optimizer, OPTIMIZERS)]
        for name in ("seg_lr", "seg_lr_factor", "seg_head_lr_scale", "seg_power", "seg_long_min"):
            found += positive(name, getattr(self, name))
        return [
            *found,
            *not_negative("seg_weight_decay", self.seg_weight_decay),
            *between("seg_momentum", self.seg_momentum, 0, 1, open_high=True),
            *between("seg_warmup", self.seg_warmup, 0, 1, open_high=True),
            *between("seg_drop_path", self.seg_drop_path, 0, 1, open_high=True),
            *counted("seg_width", self.seg_width),
            *between("seg_long_max", self.seg_long_max, 0.05, LARGEST_SCALE),
            *ordered("seg_long_min", self.seg_long_min, "seg_long_max", self.seg_long_max),
            *between("seg_flip", self.seg_flip, 0, 1),
        ]


SMOKE_ITERATIONS = 60
"""Steps at tier smoke: the stages before it have their share of the core-seconds of a run."""


def segmenter_sizes(family: str, tier: str, *, backbone: str = str(PAPER["backbone"])) -> dict[str, Any]:
    """What `Preset.networks` says of the segmenter: at tier paper DeepLabV2 on `backbone`, else the sizes of `full`, at
    tier smoke with fewer steps.

    Raises ValueError for an unknown tier.
    """
    if family == "shapes" or tier != "paper":
        small = supervised_preset(family, tier)
        sizes = {name: getattr(small, name) for name in (*PAPER, "group", "iterations")}
        return sizes | ({"iterations": SMOKE_ITERATIONS} if tier == "smoke" else {})
    steps = ITERATIONS.get(family, ITERATIONS["voc"])
    return {**PAPER, "backbone": backbone, "group": PAPER["batch"], "iterations": steps}


def segmenter_values(family: str, tier: str) -> dict[str, Any]:
    """The knobs of one dataset family and tier that differ from the card's: those of `full` on small data."""
    if family != "shapes" and tier == "paper":
        return {}
    full = supervised_preset(family, tier).knobs
    return {
        "seg_optimizer": "adamw",
        "seg_lr": full["lr"],
        "seg_head_lr_scale": full["head_lr_scale"],
        "seg_weight_decay": 0.05,
        "seg_warmup": full["warmup"],
        "seg_long_min": 0.9,
        "seg_long_max": 1.6,
    }
