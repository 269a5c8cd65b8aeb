"""`fsae`: Feature-level and Spatial-level Activation Expansion (WACV 2025), a plug-in. Defaults are the card's values
for PPC on VOC, fsae.md sections 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.spec import MethodConfig, MethodSpec, knob
from harness.errors import Problem
from methods.parts.knobs import between, not_negative, positive, steps

WORDS = {
    "absent": ("exclude", "zero"),
    "over": ("all", "selected"),
    "label_filter": ("all", "foreground"),
    "teacher_mode": ("eval", "train"),
}
"""Legal values of the knobs that are words."""
INFERRED = "fsae.md 2.6, inferred"
PRECURSOR = "precursor code"


@dataclass(frozen=True, kw_only=True)
class FsaeConfig(MethodConfig):
    """Consistency of the base's class maps on a strong view with an averaged teacher's labels on the weak one."""

    w_con: float = knob(
        1.0, "weight of the consistency; 0 spares both its forwards", source=f"fsae.md 2.4, {PRECURSOR}"
    )
    con_start: float = knob(
        0.0, "the consistency starts here", unit="share of T", source=f"fsae.md 6: 0 to .2, {INFERRED}"
    )
    p_cutoff: float = knob(
        0.95, "probability from which the teacher's label counts", source=f"fsae.md 2.3, {PRECURSOR}"
    )
    bdry_cutoff: float = knob(
        0.8, "probability from which it counts in the ring around confident foreground; p_cutoff: no ring",
        source=f"fsae.md 2.3, {PRECURSOR}",
    )  # fmt: skip
    bdry_size: int = knob(3, "side of the dilation that makes the ring; 1: no ring", unit="px of the class map",
                          source=f"fsae.md 2.3, {PRECURSOR}")  # fmt: skip
    rings: int = knob(1, "dilations of the ring", source=f"fsae.md 2.3, {PRECURSOR}")
    n_strong_augs: int = knob(5, "operations of the strong view, drawn of nine", source=f"fsae.md 2.1, {PRECURSOR}")
    blur: bool = knob(True, "the strong view is blurred", unit="bool", source=f"fsae.md 2.1, {PRECURSOR}")
    jitter_brightness: float = knob(0.3, "strong view: brightness factor is drawn from 1 +- this",
                                    source=f"fsae.md 2.1, {PRECURSOR}")  # fmt: skip
    jitter_contrast: float = knob(0.3, "strong view: contrast factor is drawn from 1 +- this",
                                  source=f"fsae.md 2.1, {PRECURSOR}")  # fmt: skip
    jitter_saturation: float = knob(0.3, "strong view: saturation factor is drawn from 1 +- this",
                                    source=f"fsae.md 2.1, {PRECURSOR}")  # fmt: skip
    jitter_hue: float = knob(0.1, "strong view: hue shift is drawn from +- this", unit="turns",
                             source=f"fsae.md 2.1, {PRECURSOR}")  # fmt: skip
    ema: float = knob(0.999, "momentum of the teacher; 1 never moves it, 0 makes it the student", fit="ema",
                      source=f"fsae.md 2.3, {PRECURSOR}")  # fmt: skip
    card_iterations: int = knob(40000, "the card's T, from which ema is fitted", unit="steps",
                                source=f"fsae.md 3, {PRECURSOR}: 20000 x 2")  # fmt: skip
    temperature: float = knob(
        0.1, "class maps in [0,1] are divided by this; unused where the base has a background channel", source=INFERRED
    )
    absent: str = knob(
        "exclude",
        "absent classes: exclude (no probability) or zero (their logits are 0, as published for PPC)",
        source=f"{INFERRED}; zero: fsae.md 2.3, {PRECURSOR}",
    )
    over: str = knob(
        "all",
        "the consistency is a mean over all pixels, so that it grows with the share of confident ones, or over those "
        "selected",
        source=f"fsae.md 2.4, {PRECURSOR}",
    )
    label_filter: str = knob("all", "labels that count: all, or foreground alone", source=f"fsae.md 2.3, {PRECURSOR}")
    teacher_mode: str = knob(
        "eval", "the teacher labels in eval mode, or in train mode with dropout as released", source="fsae.md 2.3"
    )

    def problems(self) -> list[Problem]:
        """Rules on cutoffs, ring, views and words."""
        found = [
            *not_negative("w_con", self.w_con),
            *between("con_start", self.con_start, 0, 1),
            *between("p_cutoff", self.p_cutoff, 0, 2),
            *between("bdry_cutoff", self.bdry_cutoff, 0, 2),
            *between("rings", self.rings, 0, 64),
            *between("n_strong_augs", self.n_strong_augs, 0, 64),
            *between("jitter_brightness", self.jitter_brightness, 0, 1),
            *between("jitter_contrast", self.jitter_contrast, 0, 1),
            *between("jitter_saturation", self.jitter_saturation, 0, 1),
            *between("jitter_hue", self.jitter_hue, 0, 0.5),
            *between("ema", self.ema, 0, 1),
            *steps("card_iterations", self.card_iterations),
            *positive("temperature", self.temperature),
        ]
        if self.bdry_cutoff > self.p_cutoff:
            fix = "bdry_cutoff <= p_cutoff; equal: no ring"
            found.append(Problem("bdry_cutoff", f"{self.bdry_cutoff:g} is above p_cutoff={self.p_cutoff:g}", fix))
        if self.bdry_size < 1 or self.bdry_size % 2 == 0:
            found.append(Problem("bdry_size", f"{self.bdry_size} has no centre", "an odd number of pixels; 1: no ring"))
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                found.append(Problem(name, f"{getattr(self, name)!r} is unknown", "one of " + ", ".join(words)))
        return found


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "base": {"w_con": 0.0},
    "no_ring": {"bdry_size": 1},
    "no_strong": {"n_strong_augs": 0, "blur": False},
}
"""The component grid of fsae.md 6: nothing of it, confident pixels alone, and a student's view that only colours
apart."""

METHOD = MethodSpec(
    name="fsae",
    config=FsaeConfig,
    preset="methods.fsae.presets:preset",
    build="methods.fsae.method:build",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="FSAE: activation expansion by an averaged teacher, WACV 2025, on a base that makes CAMs",
    ablations=ABLATIONS,
    tables="methods.fsae.tables:PAPER",
    plugin=True,
    trains_base=True,
    bases=("cam", "toco"),
    version=1,
)
