"""Runs many studies at once: through Ray Tune, or one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness.api.spec import resolve
from harness.engine.leaving import told_by_sigterm
from harness.engine.session import LocalSession
from harness.plan.studies import Hooks, Outcome, Record, Study
from harness.tuning.faults import LEFT, Execute, attempt
from harness.tuning.progress import ProgressDisplay
from harness.tuning.scheduler import Job, NoJob, Scheduler

EXECUTE = "harness.engine.run:execute"


def run_studies(
    studies: Sequence[Study],
    hooks: Hooks,
    *,
    execute: str = EXECUTE,
    store_root: str | Path,
    address: str | None = None,
    retry: str | None = None,
    parallel: int | None = None,
    room: Callable[[int, float, float], int] | None = None,
    show: bool = True,
) -> list[Record]:
    """Runs all studies through Ray Tune and returns their records in the order of closing.

    `execute`: `module:function`, called as `execute(payload, session) -> Outcome` inside the workers.
    `address`: a Ray cluster; None starts one on this machine, unless everything is known already.
    `retry="failed"` runs failed rows again. `parallel` caps the runs at a time below what resources allow. `room`: runs
    of so many workers, each with so many CPUs and GPUs, that the cluster holds once all its machines are there.
    Raises BadInput for studies that cannot run; KeyboardInterrupt for Ctrl-C, after a clean stop, and for SIGTERM once
    runs have left with a checkpoint.
    """
    root = Path(store_root)
    scheduler, progress = _opened(studies, hooks, root, retry)
    if not scheduler.idle():
        from harness.tuning.ray_driver import run_on_ray

        run_on_ray(
            scheduler,
            progress,
            execute=execute,
            store_root=root,
            address=address,
            parallel=parallel,
            room=room,
            show=show,
        )
    return scheduler.records


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
    scheduler, progress = _opened(studies, hooks, None if store_root is None else Path(store_root), retry)
    if not scheduler.idle():
        run_in_process(scheduler, progress, execute, session=session or LocalSession(), show=show)
    return scheduler.records


def _opened(
    studies: Sequence[Study], hooks: Hooks, store_root: Path | None, retry: str | None
) -> tuple[Scheduler, ProgressDisplay]:
    """The sweep as it stands before anything runs, and its display."""
    progress = ProgressDisplay()
    scheduler = Scheduler(studies, hooks, store_root=store_root, retry=retry, on_record=progress.closed)
    return scheduler, progress


def run_in_process(
    scheduler: Scheduler, progress: ProgressDisplay, execute: str | Execute, *, session: LocalSession, show: bool
) -> None:
    """Run what is left. See `harness.tuning.drivers.run_local`."""
    function: Execute = resolve(execute) if isinstance(execute, str) else execute
    with ExitStack() as stack:
        if show:
            stack.enter_context(progress.watching(scheduler, parallel=lambda: 1))
        notice = stack.enter_context(told_by_sigterm())
        while (job := scheduler.next()) is not NoJob.FINISHED:
            assert isinstance(job, Job), "with one run at a time nothing can be waited for"
            scheduler.begin(job.id)
            outcome = _run(scheduler, job, function, session)
            if outcome.error_class == LEFT:
                scheduler.left(job.id)
                progress.said(job, str(outcome.error_message))
            else:
                scheduler.finish(job.id, outcome)
            if notice.told():
                raise KeyboardInterrupt


def _run(scheduler: Scheduler, job: Job, execute: Execute, session: LocalSession) -> Outcome:
    def goes_on(reached: float, objective: float) -> bool:
        return scheduler.report(job.id, reached, objective)

    try:
        own = replace(session, rungs=job.rungs, on_report=goes_on)
        return attempt(execute, job.payload, own, job.study.threads)
    except SystemExit:
        return scheduler.pruned(job.id)
