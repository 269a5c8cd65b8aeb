"""FSR's step in `precision=bf16-nograd` next to our own in fp32: what the passes without gradient gain in bfloat16."""

from __future__ import annotations

import functools

from benchmarks import Case
from benchmarks.suites.step import IMAGES, PHASES, VIT, Sides
from harness.api.precision import NO_GRADIENT, of_run

GOAL = 1.2
APART = 0.2
"""Share of a term by which the first step may differ: cells whose uncertainty ties are masked or not."""


def cases(quick: bool) -> list[Case]:
    """The phases in which a CAM pass reads two views and one: ViT-Tiny at 448 pixels, B=2; quick: 64 pixels."""
    crop, tier = (64, "smoke") if quick else (448, "paper")

    def case(phase: str, it: int) -> Case:
        @functools.cache
        def sides() -> tuple[Sides, Sides]:
            return Sides(crop, tier), Sides(crop, tier)

        def low() -> dict[str, float]:
            with of_run(NO_GRADIENT, "cpu"):
                return sides()[1].ours(it)

        def equal() -> str:
            whole, half = sides()[0].ours(it), low()
            assert whole.keys() == half.keys()
            worst = max(abs(half[name] - value) / max(abs(value), 1e-8) for name, value in whole.items())
            assert worst < APART, f"{worst:.2f} apart: {whole} and {half}"
            return f"{len(whole)} terms of the first step within {worst:.0e}"

        return Case(
            f"fsr bf16-nograd {phase}",
            lambda: sides()[0].ours(it),
            low,
            equal,
            None if quick else GOAL,
            prepare=sides,
            unit=f"{VIT}, {crop} px, B={IMAGES}, next to our fp32",
        )

    return [case(phase, it) for phase, it in PHASES.items() if phase != "before-seg"]
