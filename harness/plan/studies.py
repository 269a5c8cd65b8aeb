"""Studies: what is searched, with what budget, and how the search reaches plan and store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from harness.api.space import Space
from harness.errors import BadInput, Problem, nearest
from harness.plan.payload import Payload

Role = Literal["trial", "final"]
SEARCHES = ("tpe", "rules")
ASHA_FROM_TRIALS = 4
"""Fewer trials than this are never stopped early (design section 7)."""


@dataclass(frozen=True)
class Study:
    """All trials of one method on one dataset with one kind of labels under one budget."""

    id: str
    method: str
    space: Space | None
    """None: nothing is searched, one trial."""
    preset_knobs: Mapping[str, Any]
    """Values of trial 0; every searched knob has one."""
    trials: int
    """Trial 0 included; 1 under protocol `fixed`."""
    seeds: tuple[int, ...]
    """Trials use the first; the chosen config is run with all."""
    search: str = "tpe"
    protocol: str = "held-out"
    cores_per_run: float = 1.0
    """CPUs of one worker of a run; also its threads."""
    gpus: float = 0.0
    """GPUs of one worker, fractions allowed."""
    workers: int = 1
    first_rung: float = 1.0
    """Share of T at which a trial may first be stopped: after the last loss term has started. 1 = never."""
    ends: tuple[float, ...] = ()
    """Shares of T at ends of training stages, where a trial may be stopped as well."""
    blind: tuple[tuple[float, float], ...] = ()
    """Spans of T within which a network is trained that predicts no target: nothing to judge by."""

    @property
    def threads(self) -> int:
        """CPU threads of one worker."""
        return max(1, int(self.cores_per_run))

    @property
    def budget(self) -> int:
        """Trials that this study really has."""
        searched = self.space is not None and self.space.dims > 0
        return self.trials if searched and self.protocol != "fixed" else 1

    @property
    def stops_early(self) -> bool:
        """Whether ASHA may prune trials: `tpe` with at least 4 trials and a first rung inside the run."""
        return self.search == "tpe" and self.budget >= ASHA_FROM_TRIALS and 0 < self.first_rung < 1

    def with_searched(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """All knobs of a run: the preset's, the searched ones taken from `knobs` where they are there."""
        searched = self.space.knobs if self.space is not None else ()
        return {**self.preset_knobs, **{k: knobs[k] for k in searched if k in knobs}}

    def problems(self) -> list[Problem]:
        """What is wrong with the study itself; empty when it can run."""
        found = []
        if self.search not in SEARCHES:
            found.append(Problem("search", f"unknown search {self.search!r}", nearest(self.search, SEARCHES)))
        if self.trials < 1:
            found.append(Problem("trials", f"{self.trials}", "give at least 1"))
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            found.append(Problem("seeds", f"{self.seeds}", "give at least one, each once"))
        if self.workers < 1 or self.gpus < 0 or self.cores_per_run <= 0:
            found.append(
                Problem(
                    "workers",
                    f"workers={self.workers}, gpus={self.gpus}, cores_per_run={self.cores_per_run}",
                    "give positive numbers",
                )
            )
        if self.space is not None:
            unknown = [k for k in self.space.knobs if k not in self.preset_knobs]
            found += [
                Problem(
                    f"{self.method}.{k}", "is searched, but no such knob has a value", nearest(k, self.preset_knobs)
                )
                for k in unknown
            ]
            outside = [] if unknown else self.space.outside(self.preset_knobs)
            found += [Problem(f"{self.method}.{p.where}", p.found, p.fix) for p in outside]
        return found


@dataclass(frozen=True)
class ClosedTrial:
    """A closed trial of the same study, read from the store."""

    trial: int
    knobs: Mapping[str, Any]
    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Record:
    """One closed trial or final run. `ran` is False where the outcome was known before."""

    study: str
    trial: int
    role: Role
    seed: int
    knobs: Mapping[str, Any]
    key: str
    outcome: Outcome
    ran: bool
    seconds: float = 0.0


class Hooks(Protocol):
    """How the search reaches plan and store. Called in the driver only, one call at a time."""

    def resolve(self, study: Study, knobs: Mapping[str, Any], seed: int) -> Payload:
        """The run of these knob values (all of the preset's, searched ones replaced) with this seed."""
        ...

    def known(self, key: str) -> Outcome | None:
        """What the store says of a key; None where nothing closed it."""
        ...

    def closed_trials(self, study: Study) -> Sequence[ClosedTrial]:
        """The study's trials in the store, whatever sweep wrote them, that keep their key; asked once per study."""
        ...

    def rung(self, study: Study, key: str, reached: float, objective: float) -> None:
        """Writes what a trial scored at a rung."""
        ...

    def rungs(self, study: Study, key: str) -> Mapping[float, float]:
        """What a trial scored at its rungs, by share of T, in whatever sweep; empty where nothing was written."""
        ...

    def record(self, study: Study, trial: int, role: Role, seed: int, key: str, outcome: Outcome) -> None:
        """Writes the `trials` row (and the `runs` row of a pruned or failed run); harmless when it exists."""
        ...


def key_now(hooks: Hooks, study: Study, knobs: Mapping[str, Any]) -> str | None:
    """The key that a trial of the store would run under today; None where a knob of it has become illegal.

    Where it is another than the stored one, data, weights, code or pinned knobs have changed since: its score says
    nothing of the study as it is.
    """
    try:
        return hooks.resolve(study, study.with_searched(knobs), study.seeds[0]).key
    except BadInput:
        return None


def preference(objective: float | None, trial: int) -> tuple[float, int]:
    """What the chosen trial is highest in, whoever asks: the objective, of equals the earliest."""
    known = objective is not None and not math.isnan(objective)
    return (objective if known and objective is not None else 0.0), -trial


def check_studies(studies: Sequence[Study]) -> None:
    """Raises BadInput with everything that is wrong with any of the studies."""
    ids = [s.id for s in studies]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    problems = [Problem("studies", f"{i!r} is planned twice", "drop one") for i in twice]
    problems += [p for study in studies for p in study.problems()]
    if problems:
        raise BadInput(problems)


Status = Literal["done", "pruned", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `error_class` is a fault class of `harness.tuning.faults`: why it failed, or `oom` where it was
    done with smaller groups than it asked for; else empty."""

    status: Status
    objective: float | None = None
    """mIoU in [0,1]; of the last rung where pruned; None where failed."""
    reached: float = 1.0
    """Share of T."""
    error_class: str = ""
    error_message: str = ""
    notes: tuple[str, ...] = ()
    """What the run had to say while it went on (`harness.engine.saying`)."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)
