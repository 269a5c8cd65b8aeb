"""A toy objective, and hooks on a dictionary instead of a store; importable by worker processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.api.space import Float, Gap, Space
from harness.engine.heartbeat import Heartbeat
from harness.engine.leaving import NOTICE, Left
from harness.engine.saying import say
from harness.engine.session import Session
from harness.errors import StoreError
from harness.plan.config import Machine, RunConfig
from harness.plan.payload import Origin, Payload, PlannedData
from harness.plan.studies import ClosedTrial, Outcome, Study
from harness.tuning import faults
from harness.tuning.scheduler import Job, Scheduler

SPACE = Space({"x": Float(0.0, 1.0), ("low", "high"): Gap(low=(0.1, 0.4), gap=(0.1, 0.5))})
PRESET = {"x": 0.5, "low": 0.2, "high": 0.5, "fixed": 7}


def study(id: str = "s", **changes: Any) -> Study:
    """A small study of the toy objective."""
    fields: dict[str, Any] = {"method": "toy", "space": SPACE, "preset_knobs": PRESET, "trials": 4, "seeds": (0,)}
    return Study(id=id, **{**fields, **changes})


def peak(knobs: Mapping[str, Any]) -> float:
    """In [0,1], highest at x=.3, low=.25, high=.45."""
    return 1.0 - abs(knobs["x"] - 0.3) - (knobs["low"] - 0.25) ** 2 - (knobs["high"] - 0.45) ** 2


def session_root(payload: Payload) -> Path:
    """The work folder of a run."""
    return Path(payload.machine.store) / "work" / payload.key


def execute(payload: Payload, session: Session) -> Outcome:
    """The toy run. Knob `act` of the payload names what else happens."""
    for rung in session.rungs:
        session.report(rung, peak(payload.run.knobs))
    act = payload.run.options["act"]
    root = Path(payload.machine.store) if payload.machine.store else None
    started = time.time()
    if act == "bug":
        raise ValueError("broken on purpose")
    if act == "lose gpu":
        # As after a device-side assert: this run fails, and the process is of no use to any later one.
        faults.lost_gpu = lambda: "CUDA error: device-side assert triggered"
        raise RuntimeError(faults.lost_gpu())
    if act == "oom" and not payload.machine.low_memory:
        raise MemoryError("too much")
    if act == "meet" and root is not None:
        # On a busy machine actors start far apart: the first one waits for the second before both stay a while.
        (root / f"here-{payload.key}").write_text("")
        while len(list(root.glob("here-*"))) < 2 and time.time() < started + 120:
            time.sleep(0.05)
        time.sleep(1.5)
    if act == "die once" and root is not None:
        mark = root / f"died-{payload.key}"
        if not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
    if act == "disk full":
        say("no room for a checkpoint")
        raise StoreError("no checkpoint could be written") from OSError(errno.ENOSPC, "No space left on device")
    if act == "leave once" and root is not None and not (root / f"left-{payload.key}").exists():
        (root / f"stays-{payload.key}").write_text("")
        while not NOTICE.told():
            time.sleep(0.05)
        (root / f"left-{payload.key}").write_text("")
        raise Left("told to leave at step 3 of 9")
    if act == "die at step 5":
        # Heard at step 5, then gone, as often as it is started.
        Heartbeat(session_root(payload), 0.0).write(key=payload.key, stage="train", step=5, total=9)
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang once" and root is not None and not (root / f"hung-{payload.key}").exists():
        (root / f"hung-{payload.key}").write_text("")
        heartbeat = Heartbeat(session_root(payload), 0.0)
        for step in range(1, 6):
            heartbeat.write(key=payload.key, stage="train", step=step, total=9)
            time.sleep(0.02)
        time.sleep(600)
    if act == "eat" and not payload.machine.low_memory:
        # More than the machine may hold: what ends this is Ray's memory monitor.
        Heartbeat(session_root(payload), 0.0).write(key=payload.key, stage="train", step=3, total=9)
        held = bytearray(int(os.environ["EAT_MB"]) << 20)
        held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
        time.sleep(300)
    if act == "sum ranks":
        import torch
        import torch.distributed as dist

        value = torch.tensor([float(session.rank + 1)])
        dist.all_reduce(value)
        return Outcome("done", float(value) / 10 + session.world_size / 100)
    if root is not None:
        line = {
            "key": payload.key,
            "pid": os.getpid(),
            "rank": session.rank,
            "started": started,
            "ended": time.time(),
            "origin": asdict(payload.origin),
        }
        (root / f"ran-{payload.key}-{session.rank}-{time.time_ns()}.json").write_text(json.dumps(line))
    return Outcome("done", peak(payload.run.knobs) + payload.run.seed / 1000)


def toy_payload(key: str, knobs: Mapping[str, Any], seed: int = 0, act: str = "", root: str = "") -> Payload:
    """A run of the toy objective, which leaves a file of what it was in the folder `root`."""
    run = RunConfig(
        method="toy", variant="default", knobs=dict(knobs), dataset="none", options={"act": act}, labels="tags",
        backbone="none", decoder="none", tier="smoke", crop=1, batch=1, group=1, iterations=1, seed=seed,
    )  # fmt: skip
    data = PlannedData(
        name="none", family="voc", class_names=("background", "thing"), has_background=True,
        fingerprints={"train": "f00d"},
    )  # fmt: skip
    return Payload(key=key, run=run, machine=Machine(store=root), data=data, versions={}, origin=Origin(sweep="w"))


@dataclass
class MemoryHooks:
    """Hooks on dictionaries. `acts` maps (trial number of the study's own knobs) by key or is a constant."""

    act: Any = ""
    root: str | None = None
    rows: list[tuple[str, int, str, int, str, Outcome]] = field(default_factory=list)
    runs: dict[str, Outcome] = field(default_factory=dict)
    closed: dict[str, list[ClosedTrial]] = field(default_factory=dict)
    scores: dict[str, dict[float, float]] = field(default_factory=dict)
    knobs_of: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def resolve(self, study: Study, knobs: Mapping[str, Any], seed: int) -> Payload:
        """Key = digest of method, knobs and seed."""
        text = json.dumps([study.method, dict(knobs), seed], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.knobs_of[key] = dict(knobs)
        act = self.act(study, knobs, seed) if callable(self.act) else self.act
        return toy_payload(key, knobs, seed, act, self.root or "")

    def known(self, key: str) -> Outcome | None:
        """What was recorded of a key."""
        return self.runs.get(key)

    def closed_trials(self, study: Study) -> Sequence[ClosedTrial]:
        """The closed trials of a study."""
        return self.closed.get(study.id, [])

    def rung(self, study: Study, key: str, reached: float, objective: float) -> None:
        """Remembers a score at a rung."""
        self.scores.setdefault(key, {})[reached] = objective

    def rungs(self, study: Study, key: str) -> Mapping[float, float]:
        """The remembered scores of a key."""
        return self.scores.get(key, {})

    def record(self, study: Study, trial: int, role: str, seed: int, key: str, outcome: Outcome) -> None:
        """Remembers a row."""
        self.rows.append((study.id, trial, role, seed, key, outcome))
        self.runs[key] = outcome
        if role == "trial":
            rest = [p for p in self.closed.get(study.id, []) if p.trial != trial]
            self.closed[study.id] = [*rest, ClosedTrial(trial, self.knobs_of[key], key, outcome)]


def in_flight(scheduler: Scheduler, n: int) -> list[Job]:
    """The next `n` jobs."""
    jobs = []
    for _ in range(n):
        job = scheduler.next()
        assert isinstance(job, Job)
        jobs.append(job)
    return jobs
