"""A run of several workers: what its failures become, which of them start it again, and what is told of that."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError
from tuning_toys import MemoryHooks, in_flight, study, toy_payload

from harness.engine.leaving import Left
from harness.engine.saying import say
from harness.errors import StoreError
from harness.plan.studies import Outcome
from harness.tuning import ray_worker
from harness.tuning.faults import BUG, LEFT, NODE, OOM, PREEMPTED, failed
from harness.tuning.ray_adapters import Routing, Rungs
from harness.tuning.ray_worker import DIED, SMALLER, FailedInside, JobMessage, worker_loop
from harness.tuning.scheduler import Scheduler

DEAD, GONE = ActorDiedError(), NodeDiedError("gone")
DONE = Outcome("done", 0.5)


def full() -> Exception:
    error = StoreError("no checkpoint could be written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


def inside(error: Exception) -> FailedInside:
    """As it comes from a worker: through pickle, which loses causes."""
    found: FailedInside = pickle.loads(pickle.dumps(FailedInside(failed(error).to_dict())))
    return found


def of_workers(*errors: Exception) -> Exception:
    """What Ray Train raises."""
    error = RuntimeError("training failed")
    error.worker_failures = dict(enumerate(errors))  # type: ignore[attr-defined]
    return error


def message(tmp_path: Path, **changes: Any) -> JobMessage:
    payload = toy_payload("k", {}, root=str(tmp_path))
    return JobMessage(0, "tuning_toys:execute", payload, (), 1, 1.0, 0.0, 2, str(tmp_path), str(tmp_path / "leave"))


SYMPTOM = inside(RuntimeError("Connection closed by peer"))


@pytest.mark.parametrize(
    ("attempts", "reports", "ends"),
    [
        ([of_workers(SYMPTOM, DEAD), DONE], [(PREEMPTED, False)], ("done", "")),
        ([of_workers(SYMPTOM, GONE), DONE], [(NODE, False)], ("done", "")),
        ([of_workers(SYMPTOM, inside(MemoryError())), DONE], [(OOM, True)], ("done", "")),
        ([of_workers(inside(MemoryError())), of_workers(inside(MemoryError()))], [(OOM, True)], ("failed", OOM)),
        ([of_workers(inside(full()), SYMPTOM)], [], ("failed", PREEMPTED)),
        ([of_workers(inside(ValueError("x")))], [], ("failed", BUG)),
        ([of_workers(DEAD)] * 4, [(PREEMPTED, False)] * 3, ("failed", PREEMPTED)),
    ],
    ids=["died", "node", "memory", "memory again", "disk full", "bug", "died too often"],
)
def test_what_failures_of_workers_become(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attempts: list[Any],
    reports: list[tuple[str, bool]],
    ends: tuple[str, str],
) -> None:
    tried, told, left = [], [], list(attempts)

    def fit(message: JobMessage) -> Outcome:
        tried.append(message.payload.machine.low_memory)
        monkeypatch.setattr(
            ray_worker, "read_heartbeat", lambda root, key: {"stage": "train", "step": 1, "updated": float(len(tried))}
        )
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return DONE

    monkeypatch.setattr(ray_worker, "read_heartbeat", lambda root, key: {})
    monkeypatch.setattr(ray_worker, "_fit", fit)
    monkeypatch.setattr(ray_worker.tune, "report", told.append)
    if ends == ("failed", PREEMPTED) and len(attempts) > 1:
        # Never heard: else the second death at one place would be its own doing.
        monkeypatch.setattr(ray_worker, "_heard", lambda payload: {})
    outcome = ray_worker._nested(message(tmp_path))
    assert told == [{DIED: cause, SMALLER: smaller} for cause, smaller in reports]
    assert (outcome.status, outcome.error_class) == ends
    assert tried[-1] == any(smaller for _, smaller in reports)
    assert not left


@pytest.mark.parametrize(
    ("happens", "expected"),
    [(None, ("done", "")), (Left("at step 3"), ("failed", LEFT)), (full(), ("failed", PREEMPTED))],
)
def test_a_worker_says_what_became_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: Exception | None, expected: tuple[str, str]
) -> None:
    def run(*_: Any) -> Outcome:
        say("something is damaged")
        if happens is not None:
            raise happens
        return DONE

    context = SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 2)
    monkeypatch.setattr(ray_worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray_worker, "get_device", lambda: "cpu")
    monkeypatch.setattr(ray_worker, "_execute", run)
    try:
        outcome = Outcome(**worker_loop(message(tmp_path).to_config()))
    except FailedInside as error:
        assert isinstance(happens, StoreError)
        outcome = error.outcome()
    assert (outcome.status, outcome.error_class) == expected
    assert list(outcome.notes) == ["something is damaged"]


def test_the_sweep_says_that_a_worker_died(tmp_path: Path) -> None:
    scheduler = Scheduler([study()], MemoryHooks(), store_root=tmp_path)
    (job,) = in_flight(scheduler, 1)
    told: list[Any] = []
    search = Routing(scheduler, {"s"}, lambda job: {}, lambda: 1, lambda *given: told.append(given))
    search._jobs["t"] = job.id
    goes_on = Rungs(scheduler, search).on_trial_result(
        None, SimpleNamespace(trial_id="t", config={"id": job.id}), {DIED: OOM, SMALLER: True}
    )
    assert goes_on == "CONTINUE"
    assert told == [(scheduler.running[job.id], OOM, True)]
    assert search.error is None
