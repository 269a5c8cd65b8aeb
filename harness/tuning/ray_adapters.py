"""The conductor as Ray Tune sees it: a searcher that routes trials, a scheduler that stops them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.plan.studies import Outcome
from harness.tuning.faults import PREEMPTED
from harness.tuning.scheduler import Job, NoJob, Scheduler


class Routing(Searcher):
    """Hands out the conductor's jobs, at most `limit()` at a time, and closes them with their outcomes.

    Tune swallows exceptions of its searcher: the first is kept in `error`, and `Abort` then ends the Tuner.
    """

    def __init__(
        self,
        conductor: Scheduler,
        only: Collection[str],
        ticket: Callable[[Job], dict[str, Any]],
        limit: Callable[[], int],
    ):
        super().__init__(metric="objective", mode="max")
        self._conductor, self._only, self._ticket, self._limit = conductor, only, ticket, limit
        self._jobs: dict[str, int] = {}
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The config of the next trial; None while none can start, FINISHED when all are closed."""
        if self.error is not None:
            return Searcher.FINISHED
        if len(self._jobs) >= self._limit():
            return None
        try:
            job = self._conductor.next(self._only)
            if isinstance(job, NoJob):
                return Searcher.FINISHED if job is NoJob.FINISHED else None
            config = self._ticket(job)
        except Exception as error:
            self.error = error
            return Searcher.FINISHED
        self._jobs[trial_id] = job.id
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Closes the job: by its outcome, as pruned where it has none, as preempted where its process died."""
        job_id = self._jobs.pop(trial_id, None)
        if job_id is None or self.error is not None:
            return
        try:
            self._conductor.finish(job_id, self._outcome(job_id, None if error else result))
        except Exception as failure:
            self.error = failure

    def _outcome(self, job_id: int, result: dict[str, Any] | None) -> Outcome:
        if result is None:
            text = "the process of the run died more often than it is restarted for free"
            return Outcome("failed", None, 0.0, PREEMPTED, text)
        if "outcome" in result:
            return Outcome(**json.loads(result["outcome"]))
        return self._conductor.pruned(job_id)

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
    """First come, first served; a trial that the conductor refuses at a rung is stopped.

    An exception ends the Tuner as one of the searcher does.
    """

    def __init__(self, conductor: Scheduler, search: Routing):
        super().__init__()
        self._conductor, self._search = conductor, search

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """STOP or CONTINUE for a report of a rung; the report with the outcome always passes."""
        if "outcome" in result:
            return str(TrialScheduler.CONTINUE)
        try:
            goes_on = self._conductor.report(trial.config["id"], result["reached"] / 100, result["objective"])
        except Exception as error:
            self._search.error = self._search.error or error
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
        return getattr(self, "_search", None) is not None and self._search.error is not None


class Restarts(Callback):
    """Tells `say(study, role, trial)` of runs whose process died and that start again."""

    def __init__(self, conductor: Scheduler, say: Callable[[str, str, int], None]):
        self._conductor, self._say = conductor, say

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called by Tune before it restarts a trial."""
        job = self._conductor.running.get(trial.config["id"])
        if job is not None:
            self._say(job.study.id, job.slot.role, job.slot.trial)
