"""Knobs that ToCo and UniA share. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import knob
from harness.errors import Problem
from methods.parts.knobs import AuxSegmenterKnobs, between


@dataclass(frozen=True, kw_only=True)
class PowerKnobs(AuxSegmenterKnobs):
    """ToCo's optimiser, which UniA took over, and how both start their losses."""

    drop_path: float = knob(
        0.0,
        "stochastic depth of the last block, linear from 0",
        unit="probability",
        source="toco.md 2.2, unia.md 2.1, code",
    )
    weight_decay: float = knob(0.01, "AdamW decay of every parameter", source="toco.md 3, unia.md 3, code and log")
    warmup_start: float = knob(1e-6, "learning-rate factor of the first step", source="toco.md 3, unia.md 3, code")
    power: float = knob(0.9, "learning rate falls as (1 - step/T)^power", source="toco.md 3, unia.md 3, code")
    idle_steps: bool = knob(
        False,
        "before their losses start, heads get gradients of 0, so that AdamW decays them and counts their steps; the "
        "published code multiplies such losses by 0",
        unit="bool",
        source="code of both",
    )

    def problems(self) -> list[Problem]:
        """Rules on the schedule."""
        return [*super().problems(), *between("power", self.power, 0, 10)]
