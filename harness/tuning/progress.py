"""What a person sees of a running sweep: studies, running trials with step and losses, time left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean
from typing import Any, TextIO

from harness.errors import first_line, shown
from harness.plan.studies import Record
from harness.tuning.scheduler import Job, Scheduler

DEATHS = {
    "oom": "it took more memory than there is",
    "hung": "it made no step for too long",
    "node": "its machine went away",
}
"""Why a run starts again, by what it died of."""
SILENT_S = 30.0
"""A run that was not heard for longer says so."""
PLAIN_EVERY_S = 30.0
LIVE_EVERY_S = 1.0
BAR_WIDTH = 60
"""Characters of the progress bar."""


@dataclass(frozen=True)
class RunView:
    """One running run and its latest heartbeat (empty before the first)."""

    study: str
    trial: int
    role: str
    elapsed: float
    heartbeat: Mapping[str, Any]
    in_stage: float
    """Seconds since the stage that the heartbeat names began."""
    silent: float = 0.0
    """Seconds since it was last heard."""


@dataclass(frozen=True)
class StudyView:
    """One study: closed and planned runs, mean seconds of those that ran to the end, best objective."""

    id: str
    closed: int
    total: int
    running: int
    seconds: float | None
    best: float | None


@dataclass(frozen=True)
class View:
    """The sweep at one moment."""

    studies: tuple[StudyView, ...]
    runs: tuple[RunView, ...]
    queued: int = 0
    """Runs that were handed out and wait for a process."""

    @property
    def closed(self) -> int:
        """Closed runs of the sweep."""
        return sum(s.closed for s in self.studies)

    @property
    def total(self) -> int:
        """All runs of the sweep."""
        return sum(s.total for s in self.studies)


def view_of(scheduler: Scheduler, now: float) -> View:
    """The sweep as scheduler and heartbeats show it."""
    jobs = scheduler.jobs()
    runs = []
    for job in (j for j in jobs if j.begun):
        heartbeat = scheduler.heartbeat(job)
        in_stage = now - heartbeat.get("stage_started", job.started)
        silent = max(0.0, now - heartbeat.get("updated", job.started))
        runs.append(
            RunView(job.study.id, job.planned.trial, job.planned.role, now - job.started, heartbeat, in_stage, silent)
        )
    studies = tuple(
        StudyView(
            s.study.id,
            s.closed,
            s.total,
            sum(r.study == s.study.id for r in runs),
            mean(s.seconds) if s.seconds else None,
            s.best.outcome.objective if s.best is not None else None,
        )
        for s in scheduler.states
    )
    return View(studies, tuple(runs), len(jobs) - len(runs))


def seconds_left(view: View, parallel: int) -> float | None:
    """Estimated seconds until the sweep ends; None while nothing is known of any run's length.

    A run takes the mean of its study, else what running ones of its study promise (the end of their present stage),
    else the mean of all.
    """
    promised: dict[str, list[float]] = {}
    for run in view.runs:
        step, total = run.heartbeat.get("step", 0), run.heartbeat.get("total", 0)
        if step and total and step <= total:
            # A stage that was resumed did not make its first steps in this time: its pace says how fast it is.
            pace = run.heartbeat.get("pace") or run.in_stage / step
            promised.setdefault(run.study, []).append(run.elapsed + pace * (total - step))
    length = {
        s.id: s.seconds if s.seconds is not None else mean(promised[s.id]) if s.id in promised else None
        for s in view.studies
    }
    known = [v for v in length.values() if v is not None]
    if not known:
        return 0.0 if view.closed == view.total else None
    rest, longest = 0.0, 0.0
    for study in view.studies:
        usual = length[study.id] if length[study.id] is not None else mean(known)
        assert usual is not None
        open_runs = [max(0.0, usual - r.elapsed) for r in view.runs if r.study == study.id]
        waiting = max(0, study.total - study.closed - len(open_runs))
        rest += sum(open_runs) + waiting * usual
        longest = max([longest, *open_runs, usual if waiting else 0.0])
    return max(rest / max(parallel, 1), longest)


def clock_text(seconds: float | None) -> str:
    """`90` -> `1 min 30 s`, for people."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def run_text(run: RunView) -> str:
    """One running run: place in the sweep, stage, step, losses."""
    heartbeat = run.heartbeat
    where = f"{heartbeat.get('stage', 'starting')}"
    if heartbeat.get("total"):
        where += f" {heartbeat.get('step', 0)}/{heartbeat['total']}"
    losses = "  ".join(f"{k} {v:.3g}" for k, v in (heartbeat.get("losses") or {}).items())
    silent = f"  last heard {clock_text(run.silent)} ago" if run.silent > SILENT_S else ""
    return f"{run.study}  {run.role} {run.trial}  {where}  {clock_text(run.elapsed)}{silent}  {losses}".rstrip()


def record_text(record: Record) -> str:
    """One closed run: how it ended, with the first line of its error."""
    outcome = record.outcome
    text = f"{record.study}  {record.role} {record.trial} seed {record.seed}: {outcome.status}"
    if outcome.objective is not None:
        text += f", objective {100 * outcome.objective:.1f}"
    if outcome.status == "pruned":
        text += f" at {outcome.reached:.0%}"
    if outcome.status == "failed":
        text += f" ({outcome.error_class}) {first_line(outcome.error_message)}".rstrip()
    if outcome.status == "done" and outcome.error_message:
        text += f", {first_line(outcome.error_message)}"
    return text + (f", {clock_text(record.seconds)}" if record.ran else ", known")


def summary_text(view: View, parallel: int) -> str:
    """The sweep in one line."""
    left = seconds_left(view, parallel)
    queued = f", {view.queued} queued" if view.queued else ""
    running = f"{len(view.runs)} running{queued}"
    return f"{view.closed}/{view.total} runs closed, {running}, time left {clock_text(left)}"


def share_done(view: View) -> float:
    """Share of the sweep's runs that is done, in [0,1]: closed runs, and of running ones the share of their stage."""
    parts = sum(
        min(1.0, r.heartbeat.get("step", 0) / r.heartbeat["total"]) for r in view.runs if r.heartbeat.get("total")
    )
    return min(1.0, (view.closed + parts) / view.total) if view.total else 1.0


class ProgressDisplay:
    """Shows a sweep: a live table on a terminal, else a line per closed run and one every 30 s."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream if stream is not None else sys.stdout
        self._live: Any = None
        self._shown = False
        self._scheduler: Scheduler | None = None
        self._parallel: Callable[[], int] = lambda: 1

    def closed(self, record: Record) -> None:
        """Prints one closed run while watching; runs that were known before are only counted."""
        if self._shown and record.ran:
            self._print(record_text(record))

    def restarted(self, job: Job, cause: str, smaller: bool) -> None:
        """Prints that the process of a run died, and that the run starts again from its newest checkpoint; `smaller`:
        with less memory at a time, which other checkpoints belong to."""
        if self._shown:
            why = DEATHS.get(cause, "its process died")
            how = "anew with smaller groups" if smaller else "again from its newest checkpoint"
            self._print(f"{job.study.id}  {job.planned.role} {job.planned.trial}: {why}, the run starts {how}")

    def said(self, job: Job, text: str) -> None:
        """Prints what a run has to say: that it has left and from where it goes on, or what it found damaged."""
        if self._shown:
            self._print(f"{job.study.id}  {job.planned.role} {job.planned.trial}: {text}")

    @contextmanager
    def watching(self, scheduler: Scheduler, parallel: Callable[[], int]) -> Iterator[None]:
        """Shows `scheduler` until the block ends. `parallel()` answers how many runs fit at a time."""
        self._scheduler, self._parallel, self._shown = scheduler, parallel, True
        stop = threading.Event()
        terminal = self._stream.isatty()
        if terminal:
            self._start_live()
        every = LIVE_EVERY_S if terminal else PLAIN_EVERY_S
        thread = threading.Thread(target=self._tick, args=(stop, every), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if self._live is not None:
                self._live.update(self._table(), refresh=True)
                self._live.stop()
                self._live = None
            else:
                self._print(summary_text(self._view(), parallel()))
            self._shown = False

    def _view(self) -> View:
        assert self._scheduler is not None
        return view_of(self._scheduler, time.time())

    def _tick(self, stop: threading.Event, every: float) -> None:
        while not stop.wait(every):
            if self._live is not None:
                self._live.update(self._table(), refresh=True)
                continue
            view = self._view()
            self._print(summary_text(view, self._parallel()))
            for run in view.runs:
                self._print("  " + run_text(run))

    def _print(self, line: str) -> None:
        line = shown(line)
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self._stream, flush=True)

    def _start_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(self._table(), console=Console(file=self._stream), auto_refresh=False)
        self._live.start()

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        view = self._view()
        table = Table("study", "closed", "running", "best", "a run takes", box=None)
        for s in view.studies:
            best = "" if s.best is None else f"{100 * s.best:.1f}"
            length = "" if s.seconds is None else clock_text(s.seconds)
            table.add_row(s.id, f"{s.closed}/{s.total}", str(s.running), best, length)
        runs = [Text(run_text(r), no_wrap=True, overflow="ellipsis") for r in view.runs]
        bar = ProgressBar(total=1.0, completed=share_done(view), width=BAR_WIDTH)
        return Group(table, *runs, bar, Text(summary_text(view, self._parallel())))
