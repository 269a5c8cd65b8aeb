"""Studies: what is searched, with what budget, and how to run many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.engine.session import LocalSession, Session
from harness.errors import BadInput, Problem, nearest
from harness.tuning.space import Space

if TYPE_CHECKING:
    from harness.tuning.conductor import Conductor
    from harness.tuning.progress import Progress

Status = Literal["done", "pruned", "failed"]
Role = Literal["trial", "final"]
SEARCHES = ("tpe", "rules")
EXECUTE = "harness.engine.run:execute"
ASHA_FROM_TRIALS = 4
"""Fewer trials than this are never stopped early (design section 7)."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `error_class` is a fault class of `harness.tuning.faults`, empty unless failed."""

    status: Status
    objective: float | None = None
    """mIoU in [0,1]; of the last rung where pruned; None where failed."""
    reached: float = 1.0
    """Share of T."""
    error_class: str = ""
    error_message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


Execute = Callable[[Mapping[str, Any], Session], Outcome]
"""One run from payload to store, on one worker."""


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
class Resolved:
    """A config that can run: its content key and what `execute` needs (JSON values)."""

    key: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Past:
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

    def resolve(self, study: Study, knobs: Mapping[str, Any], seed: int) -> Resolved:
        """The run of these knob values (all of the preset's, searched ones replaced) with this seed."""
        ...

    def known(self, key: str) -> Outcome | None:
        """What the store says of a key; None where nothing closed it."""
        ...

    def past(self, study: Study) -> Sequence[Past]:
        """The study's rows of role `trial` in the store, whatever sweep wrote them; asked once per study."""
        ...

    def record(self, study: Study, trial: int, role: Role, seed: int, key: str, outcome: Outcome) -> None:
        """Writes the `trials` row (and the `runs` row of a pruned or failed run); harmless when it exists."""
        ...


def check_studies(studies: Sequence[Study]) -> None:
    """Raises BadInput with everything that is wrong with any of the studies."""
    ids = [s.id for s in studies]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    problems = [Problem("studies", f"{i!r} is planned twice", "drop one") for i in twice]
    problems += [p for study in studies for p in study.problems()]
    if problems:
        raise BadInput(problems)


def run_studies(
    studies: Sequence[Study],
    hooks: Hooks,
    *,
    execute: str = EXECUTE,
    store_root: str | Path,
    address: str | None = None,
    retry: str | None = None,
    parallel: int | None = None,
    show: bool = True,
) -> list[Record]:
    """Runs all studies through Ray Tune and returns their records in the order of closing.

    `execute`: `module:function`, called as `execute(payload, session) -> Outcome` inside the workers.
    `address`: a Ray cluster; None starts one on this machine, unless everything is known already.
    `retry="failed"` runs failed rows again. `parallel` caps the runs at a time below what resources allow.
    Raises BadInput for studies that cannot run; KeyboardInterrupt, also for SIGTERM, after a clean stop.
    """
    root = Path(store_root)
    conductor, progress = _opened(studies, hooks, root, retry)
    if not conductor.idle():
        from harness.tuning.ray_driver import drive

        drive(conductor, progress, execute=execute, store_root=root, address=address, parallel=parallel, show=show)
    return conductor.records


def run_local(
    studies: Sequence[Study],
    hooks: Hooks,
    execute: str | Execute = EXECUTE,
    *,
    session: LocalSession | None = None,
    store_root: str | Path | None = None,
    retry: str | None = None,
    show: bool = False,
) -> list[Record]:
    """Runs all studies one after another in this process: same decisions and records, without Ray.

    `session` tells the device. Without `store_root` an interrupted TPE trial is proposed anew on resume.
    """
    conductor, progress = _opened(studies, hooks, None if store_root is None else Path(store_root), retry)
    if not conductor.idle():
        from harness.tuning.local_driver import drive

        drive(conductor, progress, execute, session=session or LocalSession(), show=show)
    return conductor.records


def _opened(
    studies: Sequence[Study], hooks: Hooks, store_root: Path | None, retry: str | None
) -> tuple[Conductor, Progress]:
    """The sweep as it stands before anything runs, and its display."""
    from harness.tuning.conductor import Conductor
    from harness.tuning.progress import Progress

    progress = Progress(store_root)
    conductor = Conductor(studies, hooks, store_root=store_root, retry=retry, on_record=progress.closed)
    return conductor, progress
