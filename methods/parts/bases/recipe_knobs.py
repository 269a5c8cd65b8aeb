"""Knobs of the multi-stage recipes that follow IRN: classifier, CAMs, confident labels, boundary network, walk, masks.
No torch here: words are checked without it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.inference import LARGEST_SCALE
from harness.api.spec import MethodConfig, knob
from harness.errors import Problem
from methods.parts.knobs import FURTHEST, between, list_of, not_negative, one_of, ordered, positive

NORMS = ("global", "class")
REFINEMENTS = ("none", "par", "crf", "irn")
MAPS = ("refine", "masks")
"""Stages that make labels of written maps."""
TRAINING = ("train", "train-affinity")


@dataclass(frozen=True, kw_only=True)
class ClassifierKnobs(MethodConfig):
    """Views, optimiser and CAMs of the classifier on five stages (irn.md 2.1, 2.2, 3)."""

    long_min: float = knob(
        0.625, "shortest long side of an image", unit="share of the crop", source="irn.md 2.1: 320", stage="train"
    )
    long_max: float = knob(
        1.25, "longest long side of an image", unit="share of the crop", source="irn.md 2.1: 640", stage="train"
    )
    flip_probability: float = knob(0.5, "horizontal flip", unit="probability", source="irn.md 2.1", stage=TRAINING)
    imagenet_normalisation: bool = knob(
        False,
        "normalise by ImageNet's mean and deviation instead of the network's own",
        unit="bool",
        source="operators.md A1: true in the published code",
    )
    lr: float = knob(0.1, "learning rate of the backbone", source="irn.md 3, code", stage="train")
    lr_factor: float = knob(
        1.0, "multiplies lr: what a search varies, as presets of other tiers have another lr", source="-", stage="train"
    )
    head_lr_scale: float = knob(
        10.0, "learning rate of new layers, as a multiple of lr", source="irn.md 3, code", stage=TRAINING
    )
    momentum: float = knob(
        1e-4,
        "momentum of SGD; .9 wants a learning rate ten times smaller",
        source="irn.md 3, code: by accident",
        stage=TRAINING,
    )
    weight_decay: float = knob(1e-4, "weight decay", source="irn.md 3, code", stage=TRAINING)
    power: float = knob(0.9, "exponent of the learning rate's decline", source="irn.md 3, code", stage=TRAINING)
    clip_norm: float = knob(
        0.0, "largest norm of the gradient; 0 leaves it alone", source="irn.md 3: none", stage="train"
    )
    cam_scales: tuple[float, ...] = knob(
        (1.0, 0.5, 1.5, 2.0),
        "scales of the maps that labels are made of",
        source="irn.md 2.2, code",
        stage="write-cams",
    )

    def problems(self) -> list[Problem]:
        """Rules on views, optimiser and scales."""
        found = [*super().problems(), *list_of("cam_scales", self.cam_scales, 0.1, LARGEST_SCALE)]
        for name in ("long_min", "lr", "lr_factor", "head_lr_scale", "power"):
            found += positive(name, getattr(self, name))
        found += between("long_max", self.long_max, 0, LARGEST_SCALE, open_low=True)
        if self.long_min > self.long_max:
            found.append(Problem("long_min", f"{self.long_min:g} is above long_max", "long_min <= long_max"))
        for name in ("weight_decay", "clip_norm"):
            found += not_negative(name, getattr(self, name))
        return [
            *found,
            *between("flip_probability", self.flip_probability, 0, 1),
            *between("momentum", self.momentum, 0, 1, open_high=True),
        ]


@dataclass(frozen=True, kw_only=True)
class RecipeKnobs(ClassifierKnobs):
    """What follows the classifier: labels, boundary network, random walk and masks (irn.md 2.3 to 2.6)."""

    refine: str = knob(
        "irn",
        "how maps become masks: none (their background rule alone), par (A2 before it), crf (the confident labels, 255 "
        "where unsure), irn (boundary network and random walk)",
        unit="name",
        source="irn.md 2; operators.md A2, A12",
        stage="masks",
    )
    label_crf: bool = knob(
        True, "confident labels pass a dense CRF", unit="bool", source="irn.md 2.3, code", stage=MAPS
    )
    crf_gt_prob: float = knob(
        0.7, "certainty of a label before the CRF", unit="probability", source="irn.md 2.3, code", stage=MAPS
    )
    crf_rgb_std: float = knob(5.0, "reach of the CRF in colour", unit="levels", source="irn.md 2.3, code", stage=MAPS)
    crf_xy_std: float = knob(
        50.0, "reach of the CRF's colour term in space", unit="px", source="irn.md 2.3, code", stage=MAPS
    )
    par_iterations: int = knob(
        10, "iterations of the pixel-adaptive refinement", source="operators.md A2", stage="masks"
    )
    par_dilations: tuple[int, ...] = knob(
        (1, 2, 4, 8, 12, 24),
        "distances of its neighbours",
        unit="px at half size",
        source="operators.md A2",
        stage="masks",
    )
    aff_lr: float = knob(0.1, "learning rate of the boundary head", source="irn.md 3, code", stage="train-affinity")
    aff_radius: float = knob(
        10.0,
        "pairs are nearer than this, fitted to the crop",
        unit="cells of 128",
        source="irn.md 2.5, code",
        stage="train-affinity",
    )
    aff_scale_min: float = knob(
        0.5, "smallest factor of an image's sides", source="irn.md 2.5, code", stage="train-affinity"
    )
    aff_scale_max: float = knob(
        1.5, "largest factor of an image's sides", source="irn.md 2.5, code", stage="train-affinity"
    )
    displacement: bool = knob(
        False,
        "train a displacement field too; masks do not read it",
        unit="bool",
        source="irn.md 2.4: on",
        stage="train-affinity",
    )
    edge_scales: tuple[float, ...] = knob(
        (1.0,), "scales at which boundaries are read", source="irn.md 2.6, code", stage="masks"
    )
    rw_power: float = knob(1.0, "exponent of the maps before the walk", source="irn.md 2.7", stage="masks")
    rw_beta: float = knob(10.0, "exponent of affinities", source="irn.md 2.6, code", stage="masks")
    rw_steps: int = knob(
        8, "the walk takes 2 to the power of this many steps", source="irn.md 2.6, code", stage="masks"
    )
    rw_radius: float = knob(
        5.0,
        "a step is shorter than this, fitted to the crop",
        unit="cells of 128",
        source="irn.md 2.6, code",
        stage="masks",
    )
    rw_damp: bool = knob(
        True, "the walk starts from maps times 1 - boundary", unit="bool", source="irn.md 2.6, code", stage="masks"
    )
    rw_norm: str = knob(
        "global", f"maximum that walked maps are divided by: {', '.join(NORMS)}", source="irn.md 2.6", stage="masks"
    )

    def problems(self) -> list[Problem]:
        """Rules on labels, boundary network and walk."""
        found = [
            *super().problems(),
            *list_of("edge_scales", self.edge_scales, 0.1, LARGEST_SCALE),
            *one_of("refine", self.refine, REFINEMENTS),
            *between("par_iterations", self.par_iterations, 0, 1000),
            *list_of("par_dilations", self.par_dilations, 1, FURTHEST),
        ]
        for name in ("crf_rgb_std", "crf_xy_std", "aff_lr", "aff_scale_min", "rw_power", "rw_beta"):
            found += positive(name, getattr(self, name))
        found += between("aff_scale_max", self.aff_scale_max, 0, LARGEST_SCALE, open_low=True)
        if self.aff_scale_min > self.aff_scale_max:
            found.append(Problem("aff_scale_min", f"{self.aff_scale_min:g} is above aff_scale_max", "give less"))
        for name in ("aff_radius", "rw_radius"):
            found += between(name, getattr(self, name), 1, 64, open_low=True)
        if self.rw_norm not in NORMS:
            found.append(Problem("rw_norm", f"{self.rw_norm!r} is unknown", f"one of {', '.join(NORMS)}"))
        return [
            *found,
            *between("crf_gt_prob", self.crf_gt_prob, 0, 1, open_low=True, open_high=True),
            *between("rw_steps", self.rw_steps, 0, 16),
        ]


def confident(low_name: str, low: float, high_name: str, high: float) -> list[Problem]:
    """Problems of two background scores in [0,1] of which one has to be the lower."""
    return [
        *between(low_name, low, 0, 1),
        *between(high_name, high, 0, 1),
        *ordered(low_name, low, high_name, high),
    ]
