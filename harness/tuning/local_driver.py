"""All studies in this process, one run after another: for a debugger, and for tests without Ray."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from harness.engine.outcome import Execute, Outcome
from harness.engine.session import LocalSession
from harness.spec import resolve
from harness.tuning.conductor import Conductor, Job, Sign
from harness.tuning.faults import attempt
from harness.tuning.progress import Progress


def drive(
    conductor: Conductor, progress: Progress, execute: str | Execute, *, session: LocalSession, show: bool
) -> None:
    """Run what is left. See `harness.tuning.drivers.run_local`."""
    function: Execute = resolve(execute) if isinstance(execute, str) else execute
    with ExitStack() as stack:
        if show:
            stack.enter_context(progress.watching(conductor, parallel=lambda: 1))
        while (job := conductor.next()) is not Sign.FINISHED:
            assert isinstance(job, Job), "with one run at a time nothing can be waited for"
            conductor.finish(job.id, _run(conductor, job, function, session))


def _run(conductor: Conductor, job: Job, execute: Execute, session: LocalSession) -> Outcome:
    def goes_on(reached: float, objective: float) -> bool:
        return conductor.report(job.id, reached, objective)

    try:
        own = replace(session, rungs=job.rungs, on_report=goes_on)
        return attempt(execute, job.payload, own, job.study.threads)
    except SystemExit:
        return conductor.pruned(job.id)
