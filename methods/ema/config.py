"""`ema`: a mean teacher for sparse labels. Defaults are the harness's of sparse_baselines.md 2.3."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.sparse_knobs import SPARSE_LABELS, SparseKnobs
from methods.parts.knobs import between, not_negative, one_of, steps

TARGETS = ("hard", "kl", "kl_mean")
MASKS = ("threshold", "share", "none")


@dataclass(frozen=True, kw_only=True)
class EmaConfig(SparseKnobs):
    """Half partial cross-entropy, half consistency with a slow copy of the network on unlabelled pixels."""

    m: float = knob(
        0.999,
        "momentum of the teacher, at most; it starts at 0 and rises as 1 - 1/(step+1)",
        source="sparse_baselines.md 2.1, code of Rewis3d",
        fit="ema",
    )
    tau: float = knob(
        0.95, "probability from which on the teacher is sure", source="sparse_baselines.md 2.1, 2.2, both codes"
    )
    w_u: float = knob(1.0, "lambda: weight of the consistency beside its half", source="sparse_baselines.md 2.3")
    target: str = knob(
        "hard",
        "cross-entropy with the teacher's label (hard), divergence of both (kl), or that over K as published (kl_mean)",
        unit="name",
        source="sparse_baselines.md 2.1, 2.3",
    )
    mask: str = knob(
        "threshold",
        "sure pixels count (threshold), all count times the share of sure ones (share), as published, or all (none)",
        unit="name",
        source="sparse_baselines.md 2.1, 2.3",
    )
    ramp: float = knob(
        0.0, "T_r: the consistency rises by exp(-5 (1-t/T_r)^2)", unit="share of T", source="sparse_baselines.md 2.3"
    )
    cutout: bool = knob(
        True,
        "one or two squares of the student's view have the mean colour",
        unit="bool",
        source="sparse_baselines.md 2.1",
    )
    cutout_side: float = knob(
        90 / 512, "side of such a square", unit="share of the crop", source="sparse_baselines.md 2.1, code"
    )
    cutmix: float = knob(
        0.0,
        "a box of another image of the group replaces its own",
        unit="probability",
        source="sparse_baselines.md 2.2",
    )
    count_padding: bool = knob(
        False, "padding counts as unlabelled pixels, as published", unit="bool", source="sparse_baselines.md 2.1, code"
    )
    teacher_training: bool = knob(
        False, "the teacher runs in training mode, as published", unit="bool", source="sparse_baselines.md 2.1, quirk 2"
    )
    teacher_restart: float = knob(
        0.0,
        "the teacher starts over after this, as published at every epoch; 0 never",
        unit="share of T",
        source="sparse_baselines.md 2.1, quirk 1",
    )
    card_iterations: int = knob(
        24700,
        "T of the card, from which m is fitted",
        unit="steps",
        source="sparse_baselines.md 2.3: 100 epochs of 247 steps, Cityscapes",
    )

    def problems(self) -> list[Problem]:
        """Rules on the teacher and its consistency."""
        found = [
            *super().problems(),
            *not_negative("w_u", self.w_u),
            *one_of("target", self.target, TARGETS),
            *one_of("mask", self.mask, MASKS),
            *between("cutout_side", self.cutout_side, 0, 1, open_low=True),
            *steps("card_iterations", self.card_iterations),
        ]
        for name in ("m", "tau", "ramp", "cutmix", "teacher_restart"):
            found += between(name, getattr(self, name), 0, 1)
        return found


METHOD = MethodSpec(
    name="ema",
    config=EmaConfig,
    preset="methods.ema.presets:preset",
    build="methods.ema.method:build",
    labels=SPARSE_LABELS,
    targets=("segmentation",),
    title="EMA: mean teacher for sparse labels, the plain baseline of Scribbles for All and Rewis3d",
    variants=("default", "released"),
    ablations={"base": {"w_u": 0.0}, "no_cutout": {"cutout": False}, "cutmix": {"cutmix": 0.5}, "kl": {"target": "kl"}},
    version=1,
)
