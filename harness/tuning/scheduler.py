"""Decides what runs next over all studies; knows no Ray. Every driver, local or distributed, asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from harness.engine.heartbeat import read_heartbeat
from harness.plan.payload import Payload
from harness.plan.studies import Hooks, Outcome, Record, Study, check_studies, key_now
from harness.tuning.faults import BUG, PREEMPTED, finite
from harness.tuning.points import read_points, remove_point, write_point
from harness.tuning.restarts import Deaths, Position
from harness.tuning.study_state import PlannedTrial, StudyState


class NoJob(Enum):
    """Answers of `Scheduler.next` that are not a job."""

    WAIT = "wait"
    """Nothing to start until a running job ends."""
    FINISHED = "finished"
    """Nothing runs, nothing is left."""


@dataclass(frozen=True)
class Job:
    """A run to start."""

    id: int
    planned: PlannedTrial
    key: str
    payload: Payload
    rungs: tuple[float, ...]
    started: float
    begun: bool = False
    """False while it waits for a process or for its resources: queued, not running."""
    heard_before: float = 0.0
    """`updated` of the heartbeat that was there when it began: that of an earlier attempt."""

    @property
    def study(self) -> Study:
        """The study that it belongs to."""
        return self.planned.state.study


class Scheduler:
    """The running sweep: draws trials of the studies in turn, never runs a key twice, closes each with its outcome.

    Calls may come from several threads. `on_record` hears every trial that closes.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        hooks: Hooks,
        *,
        store_root: Path | None = None,
        retry: str | None = None,
        on_record: Callable[[Record], None] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        """Raises BadInput with everything that is wrong with the studies."""
        check_studies(studies)
        self._hooks, self._root, self._retry, self._clock = hooks, store_root, retry, clock
        self._on_record = on_record
        self._lock = threading.RLock()
        self.states = [self._state(s) for s in studies]
        self.records: list[Record] = []
        self.running: dict[int, Job] = {}
        self._leaders: dict[str, int] = {}
        self._followers: dict[str, list[PlannedTrial]] = {}
        self._last_report: dict[int, tuple[float, float]] = {}
        self._ready: list[Job] = []
        self._deaths: dict[int, Deaths] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._ids = 0

    def next(self, only: Collection[str] | None = None) -> Job | NoJob:
        """The next job to start, of the studies named in `only`; known outcomes are closed on the way."""
        with self._lock:
            while not (ready := [j for j in self._ready if only is None or j.study.id in only]):
                states = [s for s in self.states if only is None or s.study.id in only]
                open_states = [s for s in states if s.has_next]
                if not open_states:
                    return NoJob.WAIT if any(s.running for s in states) else NoJob.FINISHED
                # Fewest in flight first: TPE then learns from more finished trials before it proposes.
                state = min(open_states, key=lambda s: (s.running, s.closed / s.total))
                self._place(state.draw())
            self._ready.remove(ready[0])
            job = replace(ready[0], started=self._clock())
            self.running[job.id] = job
            return job

    def idle(self) -> bool:
        """Whether nothing is left to run; closes what is known on the way."""
        with self._lock:
            if self._ready or self.running:
                return False
            job = self.next()
            if isinstance(job, Job):
                self._ready.insert(0, self.running.pop(job.id))
            return job is NoJob.FINISHED

    def jobs(self) -> list[Job]:
        """The jobs that were handed out, for displays in other threads; not all have begun."""
        with self._lock:
            return list(self.running.values())

    def begin(self, job_id: int) -> None:
        """A process has taken the job: until now it was queued."""
        with self._lock:
            job = self.running[job_id]
            before = float(self._heard(job.key).get("updated", 0.0))
            self.running[job_id] = replace(job, started=self._clock(), begun=True, heard_before=before)

    def heartbeat(self, job: Job) -> Mapping[str, Any]:
        """The latest heartbeat of a job in its present attempt; empty before the first."""
        heartbeat = self._heard(job.key)
        return heartbeat if job.begun and heartbeat.get("updated", 0.0) != job.heard_before else {}

    def died(self, job_id: int, cause: str, why: str) -> Job | None:
        """The job as it starts again after its process died; None where it is closed as failed (`restarts.Deaths`)."""
        with self._lock:
            job = self.running[job_id]
            deaths = self._deaths.setdefault(job_id, Deaths())
            outcome = deaths.after(cause, Position.of(self.heartbeat(job)), why)
            if outcome is not None:
                self.finish(job_id, outcome)
                return None
            del self.running[job_id]
            payload = job.payload.with_low_memory() if deaths.low_memory else job.payload
            again = replace(job, payload=payload, begun=False)
            self._ready.insert(0, again)
            return again

    def left(self, job_id: int) -> None:
        """Takes back a job that has left its process with a checkpoint; it starts again, for free, when one asks."""
        with self._lock:
            job = self.running.pop(job_id)
            self._ready.insert(0, replace(job, begun=False))

    def _heard(self, key: str) -> Mapping[str, Any]:
        return {} if self._root is None else read_heartbeat(self._root, key)

    def report(self, job_id: int, reached: float, objective: float) -> bool:
        """Whether the job goes on after this report of a rung."""
        with self._lock:
            job = self.running[job_id]
            self._last_report[job_id] = (reached, objective)
            asha = job.planned.state.asha
            trial = job.planned.trial
            if asha is None or job.planned.role == "final" or asha.scored(trial, reached):
                return True
            goes_on = asha.goes_on(trial, reached, objective)
            if asha.scored(trial, reached):
                self._hooks.rung(job.study, job.key, reached, objective)
            return goes_on

    def pruned(self, job_id: int) -> Outcome:
        """The outcome of a job that was stopped at its last report."""
        if job_id not in self._last_report:
            return Outcome("failed", None, 0.0, BUG, "SystemExit: the run ended itself without a report")
        reached, objective = self._last_report[job_id]
        return Outcome("pruned", objective, reached)

    def finish(self, job_id: int, outcome: Outcome) -> None:
        """Takes the outcome of a running job."""
        with self._lock:
            job = self.running.pop(job_id)
            self._deaths.pop(job_id, None)
            outcome = finite(outcome)
            self._outcomes[job.key] = outcome
            del self._leaders[job.key]
            seconds = self._clock() - job.started
            job.planned.state.running -= 1
            if outcome.status == "done":
                job.planned.state.seconds.append(seconds)
            self._close(job.planned, job.key, outcome, ran=True, seconds=seconds)
            if self._root is not None:
                # After its row: a driver that dies in between must not forget the setting.
                remove_point(self._root, job.key)
            for planned in self._followers.pop(job.key, []):
                planned.state.running -= 1
                self._place(planned)

    def _state(self, study: Study) -> StudyState:
        """A study with what the store knows of its trials: closed ones, interrupted ones, scores at rungs."""
        if study.search != "tpe" or study.budget == 1:
            return StudyState(study, (), {})
        found = {} if self._root is None else read_points(self._root, study.id)
        points = {key: p for key, p in found.items() if key_now(self._hooks, study, p[1]) == key}
        stored = self._hooks.closed_trials(study)
        state = StudyState(study, stored, dict(points.values()))
        if state.asha is not None:
            numbers = {key: trial for key, (trial, _) in points.items()} | {p.key: p.trial for p in stored}
            # Trial 0 needs no point: its setting is the preset's.
            numbers[self._hooks.resolve(study, study.preset_knobs, study.seeds[0]).key] = 0
            for key, trial in numbers.items():
                state.asha.refill(trial, self._hooks.rungs(study, key))
        return state

    def _place(self, planned: PlannedTrial) -> None:
        """Closes the trial from what is known, or lets it follow a running job of the same key, or makes a job."""
        study = planned.state.study
        payload = self._hooks.resolve(study, planned.knobs, planned.seed)
        key = payload.key
        outcome = self._known(planned, key)
        if outcome is not None:
            self._close(planned, key, outcome, ran=False, seconds=0.0)
            return
        planned.state.running += 1
        if key in self._leaders:
            self._followers.setdefault(key, []).append(planned)
            return
        payload = payload.with_origin(study=study.id, trial=planned.trial, role=planned.role)
        asha = planned.state.asha if planned.role == "trial" else None
        job = Job(self._ids, planned, key, payload, asha.rungs if asha else (), self._clock())
        self._ids += 1
        self._leaders[key] = job.id
        if self._root is not None and planned.role == "trial" and planned.trial > 0 and study.search == "tpe":
            write_point(self._root, key, study.id, planned.trial, planned.knobs)
        self._ready.append(job)

    def _known(self, planned: PlannedTrial, key: str) -> Outcome | None:
        """What closes the trial without a run: an outcome of this sweep, else one of the store."""
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._hooks.known(key)
            earlier = planned.state.stored_outcome(planned, key)
            if earlier is not None and earlier.status == "pruned" and (outcome is None or outcome.status == "pruned"):
                outcome = earlier
            if (
                outcome is not None
                and outcome.status == "failed"
                and (self._retry == "failed" or outcome.error_class == PREEMPTED)
            ):
                return None
        if outcome is not None and outcome.status == "pruned" and not planned.prunable:
            return None
        return outcome

    def _close(self, planned: PlannedTrial, key: str, outcome: Outcome, *, ran: bool, seconds: float) -> None:
        study = planned.state.study
        record = Record(study.id, planned.trial, planned.role, planned.seed, planned.knobs, key, outcome, ran, seconds)
        self._hooks.record(study, planned.trial, planned.role, planned.seed, key, outcome)
        planned.state.close(record)
        self.records.append(record)
        if self._on_record is not None:
            self._on_record(record)
