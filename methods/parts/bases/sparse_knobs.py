"""The frame in which `agmm`, `ema` and `gatedcrf` learn from sparse labels: its knobs and presets. No torch here.

At tier paper the frame is AGMM's (agmm.md 2.1, 3); on `shapes` and at tiers smoke and lab it is that of `pce` and
`full`, so that there the rows differ in nothing but their losses.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset, knob
from harness.errors import Problem
from methods.parts.knobs import (
    FURTHEST,
    DecoderKnobs,
    SegmenterKnobs,
    between,
    list_of,
    not_negative,
    one_of,
    positive,
)
from methods.parts.sizes import SPARSE_SHAPES_SMOKE, SPARSE_SMOKE, sized_preset, supervised_preset
from methods.parts.views.sparse_knobs import SparseViewKnobs

SPARSE_LABELS = ("points", "scribbles", "clicks20", "clicks50", "clicks100", "blocks", "coarse")
OPTIMIZERS, SCHEDULES = ("sgd", "adamw"), ("poly", "cosine")


@dataclass(frozen=True, kw_only=True)
class SparseKnobs(SparseViewKnobs, DecoderKnobs):
    """Views, network and optimiser that the methods of sparse labels share."""

    optimizer: str = knob("sgd", "sgd, or adamw as in `pce`", unit="name", source="agmm.md 3, code; adamw: fsr.md 3")
    schedule: str = knob("poly", "poly, or cosine as in `pce`", unit="name", source="agmm.md 3, code; cosine: fsr.md 3")
    lr_backbone: float = knob(1e-3, "learning rate of the backbone; Cityscapes 5e-3", source="agmm.md 3, yaml")
    lr_mult_head: float = knob(
        10.0, "learning rate of all else, as a multiple of the backbone's; Cityscapes 1", source="agmm.md 3, yaml"
    )
    lr_factor: float = knob(
        1.0, "multiplies both rates: what a search varies, as presets of other tiers have another rate", source="-"
    )
    weight_decay: float = knob(
        1e-4, "of every parameter with sgd, of those with two or more axes with adamw", source="agmm.md 3, code"
    )
    momentum: float = knob(0.9, "of sgd", source="agmm.md 3, code")
    power: float = knob(0.9, "poly: learning rate falls as (1 - step/T)^power", source="agmm.md 3, code")
    warmup: float = knob(0.0, "linear warm-up", unit="share of T", source="agmm.md 3: none")
    warmup_start: float = knob(0.1, "learning-rate factor of the first step of a warm-up", source="fsr.md 3, code")
    drop_path: float = knob(
        0.0, "stochastic depth of a ViT's last block, linear from 0", unit="probability", source="agmm.md 3: none"
    )
    dropout: float = knob(0.5, "channel dropout behind the pyramid", unit="probability", source="agmm.md 2.2, code")
    rates: tuple[int, ...] = knob(
        (6, 12, 18),
        "dilations of the pyramid; Cityscapes 12, 24, 36; at tiers smoke and lab by the grid, as in `pce`",
        unit="cells",
        source="agmm.md 3, yaml",
    )
    output_stride: int = knob(
        8, "pixels a cell of the deep map, 8 or 16, of networks that can be dilated", unit="px", source="agmm.md 3"
    )
    multi_grid: bool = knob(
        False,
        "dilations of the last stage times 2, 2, 4; Cityscapes true",
        unit="bool",
        source="agmm.md 3, yaml and code",
    )
    align_corners: bool = knob(
        True,
        "maps are resized with aligned corners: cell i of a strided CNN lies at pixel i * stride of an odd crop",
        unit="bool",
        source="agmm.md 2.2, code",
    )
    train_norms: bool = knob(
        True,
        "batch norm of the backbone learns, over the group; false: it keeps its pretraining's statistics, as in `pce`",
        unit="bool",
        source="agmm.md 3, code: SyncBN, nothing frozen",
    )

    def problems(self) -> list[Problem]:
        """Rules on network and optimiser."""
        found = [
            *super().problems(),
            *one_of("optimizer", self.optimizer, OPTIMIZERS),
            *one_of("schedule", self.schedule, SCHEDULES),
            *list_of("rates", self.rates, 1, FURTHEST),
            *not_negative("weight_decay", self.weight_decay),
            *between("momentum", self.momentum, 0, 1, open_high=True),
            *between("power", self.power, 0, 10),
            *between("warmup", self.warmup, 0, 1, open_high=True),
            *between("warmup_start", self.warmup_start, 0, 1),
            *between("drop_path", self.drop_path, 0, 1, open_high=True),
            *between("dropout", self.dropout, 0, 1, open_high=True),
        ]
        for name in ("lr_backbone", "lr_mult_head", "lr_factor"):
            found += positive(name, getattr(self, name))
        if self.output_stride not in (8, 16):
            found.append(Problem("output_stride", str(self.output_stride), "8 or 16"))
        return found


VOC_ITERATIONS = 80 * (10582 // 16)
CITYSCAPES_ITERATIONS = 240 * (2975 // 12)
RENAMED = {"lr": "lr_backbone", "head_lr_scale": "lr_mult_head"}
PLAIN: dict[str, Any] = {
    "geometry": "area",
    "optimizer": "adamw",
    "schedule": "cosine",
    "grey_probability": 0.0,
    "blur_probability": 0.0,
    "shift_probability": 0.0,
    "dropout": 0.0,
    "align_corners": False,
    "train_norms": False,
}
"""What `pce` and `full` are, in the words of this frame."""
CITYSCAPES: dict[str, Any] = {
    "lr_backbone": 5e-3,
    "lr_mult_head": 1.0,
    "rates": (12, 24, 36),
    "multi_grid": True,
    "strong_colour": False,
}


def plain_knobs(family: str, tier: str) -> dict[str, Any]:
    """The frame of `pce`: its knobs and its preset's values, under the names that they have here."""
    values = {f.name: f.default for f in SegmenterKnobs.knobs().values()} | dict(supervised_preset(family, tier).knobs)
    known = SparseKnobs.knobs()
    named = {RENAMED.get(name, name): value for name, value in values.items()}
    return {name: value for name, value in named.items() if name in known} | PLAIN


def sparse_preset(family: str, tier: str) -> Preset:
    """Sizes and frame of one dataset family and tier: AGMM's at tier paper, those of `pce` at the others.

    The published batch is per GPU and their number is told in three ways (agmm.md 3). Taken here: VOC on one GPU, so
    that batch norm and losses see the same 16 images; Cityscapes on three, as its scripts pin, in groups of 4.
    Raises ValueError for an unknown tier.
    """
    if family == "shapes" or tier != "paper":
        small = sized_preset(
            family,
            tier,
            plain_knobs(family, tier),
            smoke_iterations=SPARSE_SMOKE,
            lab_iterations=300,
            shapes_smoke=SPARSE_SHAPES_SMOKE,
        )
        return dataclasses.replace(small, decoder="deeplabv3plus")
    if family == "cityscapes":
        sizes: dict[str, Any] = {"crop": 721, "batch": 12, "group": 4, "iterations": CITYSCAPES_ITERATIONS}
        return _paper("resnet50s.gluon_in1k", "agmm-tiles", sizes, CITYSCAPES)
    sizes = {"crop": 321, "batch": 16, "group": 16, "iterations": VOC_ITERATIONS}
    return _paper("resnet101s.gluon_in1k", "agmm", sizes, {})


def _paper(backbone: str, scoring: str, sizes: dict[str, Any], knobs: dict[str, Any]) -> Preset:
    return Preset(
        backbone=backbone,
        decoder="deeplabv3plus",
        card_iterations=sizes["iterations"],
        inference=PROTOCOLS[scoring],
        trials=20,
        seeds=3,
        knobs=dict(knobs),
        **sizes,
    )
