"""The scheduler as Ray Tune sees it: a searcher that routes trials, a scheduler that stops them."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import Callback, Stopper
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.errors import BadInput
from harness.plan.studies import Outcome
from harness.tuning.faults import LEFT, PREEMPTED, death_of
from harness.tuning.nodes import UnfitNode, problem_of
from harness.tuning.ray_worker import DIED, SMALLER
from harness.tuning.restarts import HUNG, Watch
from harness.tuning.scheduler import Job, NoJob, Scheduler

WATCH_EVERY_S = 2.0


class Routing(Searcher):
    """Hands out the scheduler's jobs, at most `limit()` at a time, and closes them with their outcomes.

    Tune swallows exceptions of its searcher: the first is kept in `error`, and `Abort` then ends the Tuner.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        only: Collection[str],
        message: Callable[[Job], dict[str, Any]],
        limit: Callable[[], int],
        again: Callable[[Job, str, bool], None],
        say: Callable[[Job, str], None] = lambda job, text: None,
        leaving: Callable[[], bool] = lambda: False,
    ):
        """`again(job, cause, smaller)` hears of runs that start again after a death, and whether with less memory at a
        time; `say` hears what runs have to say, also that they were told to leave.

        Once `leaving()` no further job is handed out, and the Tuner ends with the last that has begun.
        """
        super().__init__(metric="objective", mode="max")
        self._scheduler, self._only, self._message, self._limit = scheduler, only, message, limit
        self._again, self._say, self.leaving = again, say, leaving
        self._jobs: dict[str, int] = {}
        self.deaths: dict[str, tuple[str, str]] = {}
        """By trial that is about to be told as ended in error: of what it died, and Ray's words."""
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The config of the next trial; None while none can start, FINISHED when all are closed."""
        if self.error is not None or self.leaving():
            return Searcher.FINISHED
        if len(self._jobs) >= self._limit():
            return None
        try:
            job = self._scheduler.next(self._only)
            if isinstance(job, NoJob):
                return Searcher.FINISHED if job is NoJob.FINISHED else None
            config = self._message(job)
        except Exception as error:
            self.error = error
            return Searcher.FINISHED
        self._jobs[trial_id] = job.id
        return config

    def on_trial_start(self, trial_id: str) -> None:
        """A process has taken the trial's job."""
        if trial_id in self._jobs and self.error is None:
            self._scheduler.begin(self._jobs[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Closes the job by its outcome, or as pruned where it has none; hands it back where its process died."""
        job_id = self._jobs.pop(trial_id, None)
        cause, why = self.deaths.pop(trial_id, (PREEMPTED, ""))
        if job_id is None or self.error is not None:
            return
        try:
            job = self._scheduler.running[job_id]
            if error or result is None:
                if again := self._scheduler.died(job_id, cause, why):
                    self._again(again, cause, again.payload.machine.low_memory)
                return
            outcome = self._outcome(job_id, result)
            for note in outcome.notes:
                self._say(job, note)
            if outcome.error_class == LEFT:
                self._scheduler.left(job_id)
                self._say(job, outcome.error_message)
            else:
                self._scheduler.finish(job_id, outcome)
        except Exception as failure:
            self.error = failure

    def restarted(self, trial_id: str, cause: str, smaller: bool) -> None:
        """A run of several workers starts again by itself after one of them died."""
        self._again(self._scheduler.running[self._jobs[trial_id]], cause, smaller)

    def end(self, error: Exception) -> None:
        """Ends the sweep with an error; what had failed before stays the reason."""
        self.error = self.error or error

    def begun(self) -> bool:
        """Whether any job is in a process by now."""
        return any(job.begun for job in self._scheduler.jobs())

    def job_of(self, trial_id: str) -> int | None:
        """The job that a trial runs."""
        return self._jobs.get(trial_id)

    def _outcome(self, job_id: int, result: dict[str, Any]) -> Outcome:
        return Outcome(**json.loads(result["outcome"])) if "outcome" in result else self._scheduler.pruned(job_id)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: a sweep resumes from its store."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep resumes from its store."""

    def restore(self, checkpoint_path: str) -> None:
        """Refused. Raises RuntimeError."""
        raise RuntimeError("a sweep resumes from its store: run the same command again")


class Rungs(FIFOScheduler):
    """First come, first served; a trial that the scheduler refuses at a rung is stopped.

    An exception ends the Tuner as one of the searcher does.
    """

    def __init__(self, scheduler: Scheduler, search: Routing):
        super().__init__()
        self._scheduler, self._search = scheduler, search

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Tune just before the searcher hears that the trial ended: only here is the error at hand."""
        path = trial.pickled_error_file
        error = pickle.loads(Path(path).read_bytes()) if path and Path(path).is_file() else None
        # Tune's own report asks the dead actor for its place, and takes no death but a plain one for an answer.
        trial._default_result_or_future = None
        if isinstance(error, RayTaskError) and isinstance(error.cause, UnfitNode):
            node, _, why = str(error.cause).partition(": ")
            self._search.end(BadInput(problem_of(node, why)))
        if error is not None:
            self._search.deaths.setdefault(trial.trial_id, (death_of(error), str(error)))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """STOP or CONTINUE for a report of a rung; those with the outcome, or of dead workers, always pass."""
        if "outcome" in result:
            return str(TrialScheduler.CONTINUE)
        try:
            if DIED in result:
                self._search.restarted(trial.trial_id, result[DIED], result[SMALLER])
                return str(TrialScheduler.CONTINUE)
            goes_on = self._scheduler.report(trial.config["id"], result["reached"] / 100, result["objective"])
        except Exception as error:
            self._search.end(error)
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class Abort(Stopper):
    """Ends the Tuner, running trials included, once the searcher has failed."""

    def __init__(self, search: Routing):
        self._search = search

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether all has to end."""
        search = getattr(self, "_search", None)
        return search is not None and (search.error is not None or (search.leaving() and not search.begun()))


class Watchdog(Callback):
    """Tells the scheduler which trials have begun, and kills those that hang."""

    def __init__(self, scheduler: Scheduler, search: Routing):
        self._scheduler, self._search = scheduler, search
        self._watch = Watch(scheduler.heartbeat)
        self._last = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called by Tune when an actor has taken the trial."""
        self._search.on_trial_start(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune after each round of its loop."""
        if time.monotonic() - self._last < WATCH_EVERY_S:
            return
        self._last = time.monotonic()
        hung = {job.id: why for job, why in self._watch.hung(j for j in self._scheduler.jobs() if j.begun)}
        for trial in trials if hung else ():
            job, actor = self._search.job_of(trial.trial_id), trial.temporary_state.ray_actor
            if job is not None and actor is not None and (why := hung.get(job)):
                self._search.deaths[trial.trial_id] = (HUNG, why)
                ray.kill(actor)


class LostActor(RayActorError):
    """An actor that ended for a reason which Ray's Tune does not take for the death of an actor."""

    def __init__(self, origin: Exception):
        super().__init__(error_msg=str(origin))
        self.__cause__ = origin


@contextmanager
def every_death_is_told() -> Iterator[None]:
    """While this lasts an actor that Ray ended for memory, or with its node, is a dead actor to Tune.

    Ray 2.60 raises classes of their own for these (`OutOfMemoryError`, ...), which Tune takes for a fault of its own
    machinery: the whole sweep would end.
    """
    told = RayActorManager._actor_task_failed

    def failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError) or not isinstance(exception, RayError)
        told(manager, tracked_actor_task, exception if known else LostActor(exception))

    manager_class: Any = RayActorManager
    manager_class._actor_task_failed = failed
    try:
        yield
    finally:
        manager_class._actor_task_failed = told


@contextmanager
def without_notes_of_ray() -> Iterator[None]:
    """While this lasts what Ray's processes publish to drivers (of a node that is gone: its ids, and guesses) stays in
    Ray's logs; what a user has to know of it the display says. Ray has no setting for it."""
    from ray._private import worker

    module: Any = worker
    printed = module.print_to_stdstream
    module.print_to_stdstream = lambda data, ignore_prefix: None
    try:
        yield
    finally:
        module.print_to_stdstream = printed


@contextmanager
def credentials_stay_here() -> Iterator[None]:
    """Keep AWS's keys of this process out of what Tune asks of its actors: it would send them to every machine, whose
    Ray writes them into a log as they are. Machines have their own role, processes of this one its environment."""
    of_aws = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(of_aws)
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE.update(of_aws)
