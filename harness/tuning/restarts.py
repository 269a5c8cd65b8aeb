"""What becomes of a run whose process died: it starts again, with less memory at a time, or ends as a failed row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.plan.studies import Outcome
from harness.tuning.faults import BUG, NODE, OOM, PREEMPTED

FREE_RESTARTS = 3
"""Deaths of one run that cost nothing; what dies more often fails, and the same command tries it anew."""
SAME_SECONDS = 2.0
"""Deaths within these seconds of work are at the same position: a run is heard once a second."""
HANG_TIMES = 20.0
"""A run that is silent for this many times its usual hangs."""
HANG_FLOOR_S = 300.0
"""No silence shorter than this is called a hang: a step may compile, or wait for a disk."""
HANG_UNKNOWN_S = 3600.0
"""The silence that is called a hang where the usual one is not known: before the second report of a stage, and from its
last one to the first of the next."""
UNWATCHED = ("start",)
"""Stages whose length nothing tells: a large dataset may be read for hours the first time."""
HUNG = "hung"
"""Killed because it made no step for too long."""


@dataclass(frozen=True)
class Position:
    """Where a run was when it was last heard: its stage, steps done, and seconds that a step takes (0: unknown)."""

    stage: str
    step: int
    pace: float = 0.0

    @classmethod
    def of(cls, heartbeat: Mapping[str, Any]) -> Position | None:
        """The position that a heartbeat tells; None where the run has not been heard."""
        if "stage" not in heartbeat:
            return None
        return cls(str(heartbeat["stage"]), int(heartbeat.get("step", 0)), float(heartbeat.get("pace", 0.0)))

    def same(self, other: Position) -> bool:
        """Whether both are one position, as closely as a run is heard."""
        apart = abs(self.step - other.step)
        near = not apart or 0 < apart * max(self.pace, other.pace) <= SAME_SECONDS
        return self.stage == other.stage and near

    def __str__(self) -> str:
        return f"{self.stage} step {self.step}" if self.step else self.stage


class Deaths:
    """How often the process of one run died, where and of what."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._heard_oom = 0
        self._positions: list[Position] = []
        self.low_memory = False
        """Whether the run goes on with less memory at a time."""

    def after(self, cause: str, position: Position | None, why: str) -> Outcome | None:
        """None where the run starts again after this death; else how it ends.

        `cause`: OOM (once more, with less memory), HUNG (once more), NODE (free), BUG and others that no restart mends,
        and PREEMPTED for a process that died: free, but twice at the same position is its own doing. Ray ends idle
        processes too when memory is short: OOM before a run was heard is free as well.
        """
        self._count[cause] = self._count.get(cause, 0) + 1
        where = "before it was heard" if position is None else f"at {position}"
        heard = position is not None
        if cause == OOM and heard:
            self._heard_oom += 1
        self.low_memory = self.low_memory or (cause == OOM and (heard or self._count[OOM] > 1))
        if (cause == HUNG and self._count[HUNG] == 1) or (cause == OOM and heard and self._heard_oom == 1):
            return None
        if cause == OOM and (heard or self._count[OOM] > FREE_RESTARTS):
            return _failed(OOM, f"out of memory again {where}, with smaller groups", why)
        if cause == HUNG:
            return _failed(BUG, f"no step for too long again, {where}", why)
        if cause not in (PREEMPTED, NODE, OOM):
            return _failed(cause, f"ended {where}", why)
        if cause == PREEMPTED and position is not None:
            if any(position.same(before) for before in self._positions):
                hint = "killed for memory, or broken in compiled code"
                return _failed(BUG, f"its process died twice at the same place, {position}: {hint}", why)
            self._positions.append(position)
        if self._count.get(PREEMPTED, 0) + self._count.get(NODE, 0) > FREE_RESTARTS:
            return _failed(PREEMPTED, f"its process died more often than it is restarted for free, last {where}", why)
        return None


def _failed(fault: str, text: str, why: str) -> Outcome:
    return Outcome("failed", None, 0.0, fault, f"{text}\n{why}".strip())


class Heard(Protocol):
    """As much of a job as the watch looks at."""

    @property
    def id(self) -> int: ...


class Watch:
    """Finds runs that hang. Goes by the watcher's own clock, so that clocks of other machines do not matter."""

    def __init__(self, heartbeat: Callable[[Any], Mapping[str, Any]], clock: Callable[[], float] = time.monotonic):
        """`heartbeat(job)`: the job's latest heartbeat in its present attempt, empty before the first."""
        self._heartbeat, self._clock = heartbeat, clock
        self._seen: dict[int, tuple[Any, float]] = {}

    def hung(self, jobs: Iterable[Heard]) -> list[tuple[Any, str]]:
        """The jobs among the running ones that made no step for too long, and what is known of each."""
        now, found = self._clock(), []
        jobs = list(jobs)
        self._seen = {job.id: self._seen[job.id] for job in jobs if job.id in self._seen}
        for job in jobs:
            heartbeat = self._heartbeat(job)
            stamp, since = self._seen.get(job.id, (None, now))
            if heartbeat.get("updated") != stamp:
                self._seen[job.id] = (heartbeat.get("updated"), now)
                continue
            silent, limit = now - since, _limit(heartbeat)
            if silent > limit:
                pace = float(heartbeat.get("pace", 0.0))
                usual = f", where one takes {pace:.3g} s" if pace else ""
                found.append((job, f"no step for {silent:.0f} s at {Position.of(heartbeat)}{usual}"))
        return found


def _limit(heartbeat: Mapping[str, Any]) -> float:
    """Seconds of silence after this heartbeat that are a hang."""
    if heartbeat.get("stage", UNWATCHED[0]) in UNWATCHED:
        return math.inf
    every = float(heartbeat.get("every", 0.0))
    inside = 0 < int(heartbeat.get("step", 0)) < int(heartbeat.get("total", 0))
    return max(HANG_FLOOR_S, HANG_TIMES * every) if inside and every else HANG_UNKNOWN_S
