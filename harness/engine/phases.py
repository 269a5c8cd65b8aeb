"""Named wall-clock counters of a run: where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.store.rows import BY_STAGE, REUSED

PHASES = ("start", "build", "data", "views", "method", "engine", "checkpoint", "stages", "score", "store")


class Phases:
    """Seconds by phase. Phases do not nest: time belongs to the innermost one that is open."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []
        self._since = time.perf_counter()

    @property
    def unscored(self) -> float:
        """Seconds of all phases but scoring, which happens inside and between stages."""
        return sum(value for name, value in self.seconds.items() if name != "score")

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count the time inside the block under `name`."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def phase_table(seconds: Mapping[str, Any]) -> str:
    """One line per phase with its share, then the stages of a recipe of several, and the share of step time that was
    not spent in the method."""
    spent = {name: value for name, value in seconds.items() if name not in (REUSED, BY_STAGE)}
    total = sum(spent.values()) or 1.0
    lines = [f"  {name:<11}{value:9.2f} s {100 * value / total:5.1f} %" for name, value in spent.items() if value]
    if REUSED in seconds:
        lines.append(f"  {REUSED:<11}{seconds[REUSED]:9.2f} s spent by other runs on stages that this one shares")
    if BY_STAGE in seconds:
        stages = ", ".join(f"{name} {value:.2f} s" for name, value in seconds[BY_STAGE].items())
        lines.append(f"  by stage: {stages}")
    lines.append(f"  step time outside the method {100 * step_overhead(seconds):.1f} %")
    return "\n".join(lines)


def step_overhead(seconds: Mapping[str, Any]) -> float:
    """Share of step time that is not spent in the method's own code (its views, its step), in [0,1]."""
    own = sum(seconds.get(k, 0.0) for k in ("views", "method"))
    step = own + sum(seconds.get(k, 0.0) for k in ("data", "engine"))
    return 1.0 - own / step if step else 0.0
