"""Fault classes."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from tuning_toys import toy_payload

from harness.engine.session import LocalSession
from harness.errors import BadInput, NonFiniteLoss, Problem, StoreError
from harness.plan.studies import Outcome
from harness.store import Store
from harness.tuning import faults
from harness.tuning.faults import (
    BAD_INPUT,
    BUG,
    NODE,
    OOM,
    PREEMPTED,
    attempt,
    classify,
    death_of,
    failed,
    leave_without_gpu,
    lost_gpu,
    worst,
)


class ActorDiedError(Exception):
    """Named like Ray's."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ValueError("x"), BUG),
        (NonFiniteLoss("step 3"), BUG),
        (MemoryError(), OOM),
        (torch.OutOfMemoryError("x"), OOM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OOM),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), OOM),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), OOM),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), BUG),
        (RuntimeError("CUDA error: device-side assert triggered"), BUG),
        (ActorDiedError("The actor died. Task was killed due to the node running low on memory."), OOM),
        (ActorDiedError("Some common causes include: (1) the process was killed by the OOM killer"), PREEMPTED),
        (RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. "), PREEMPTED),
        (ValueError("Caught ValueError in DataLoader worker process 0."), BUG),
        (OSError(errno.ENOSPC, "No space left on device"), PREEMPTED),
        (OSError(errno.ESTALE, "Stale file handle"), PREEMPTED),
        (OSError(errno.EIO, "Input/output error"), PREEMPTED),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), PREEMPTED),
        (FileNotFoundError(errno.ENOENT, "No such file"), BUG),
        (PermissionError(errno.EACCES, "Permission denied"), BUG),
        (StoreError("the store has no table"), BUG),
        (ActorDiedError(), PREEMPTED),
        (BadInput(Problem("a.png", "damaged", "replace it")), BAD_INPUT),
    ],
)
def test_classes(error: Exception, fault: str) -> None:
    assert classify(error) == fault
    wrapped = RuntimeError("around")
    wrapped.__cause__ = error
    assert classify(wrapped) == fault


def test_a_store_on_a_full_disk_is_tried_again_by_the_same_command(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    def writes(payload: Any, session: Any) -> Outcome:
        rows = {"eval": ["a"], "image": ["i"], "class": [0], "tp": [1], "fp": [0], "fn": [0]}
        Store(tmp_path).write("counts", "a", pl.DataFrame(rows))
        return Outcome("done", 0.5)

    outcome = attempt(writes, toy_payload("a", {}), LocalSession())
    assert (outcome.status, outcome.error_class) == ("failed", PREEMPTED)
    assert "the disk is full" in outcome.error_message
    monkeypatch.undo()
    assert attempt(writes, toy_payload("a", {}), LocalSession()) == Outcome("done", 0.5)


class BrokenGpu:
    """Stands for torch in a process whose CUDA context is lost (or was never opened)."""

    def __init__(self, error: str, initialized: bool = True):
        self.error = error
        self.cuda = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: initialized)

    def zeros(self, *size: int, device: str) -> Any:
        """Fails as every call does after a device-side assert."""
        raise RuntimeError(self.error)


ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


def test_a_lost_gpu_is_told_from_a_full_one_and_from_none(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", BrokenGpu(ASSERT))
    assert lost_gpu() == "CUDA error: device-side assert triggered"
    monkeypatch.setitem(sys.modules, "torch", BrokenGpu("CUDA error: out of memory"))
    assert lost_gpu() == ""
    monkeypatch.setitem(sys.modules, "torch", BrokenGpu(ASSERT, initialized=False))
    assert lost_gpu() == ""
    monkeypatch.undo()
    assert lost_gpu() == ""


def test_after_a_lost_gpu_runs_are_preempted_instead_of_failing_as_bugs(monkeypatch: Any) -> None:
    """The run that broke it is a bug; those after it never start in this process."""
    lost: list[str] = []
    monkeypatch.setattr(faults, "lost_gpu", lambda: lost[0] if lost else "")

    def breaks(payload: Any, session: Any) -> Outcome:
        lost.append("CUDA error: device-side assert triggered")
        raise RuntimeError(lost[0])

    assert attempt(breaks, toy_payload("a", {}), LocalSession()).error_class == BUG
    later = attempt(breaks, toy_payload("a", {}), LocalSession())
    assert (later.error_class, len(lost)) == (PREEMPTED, 1)
    assert later.error_message == (
        "an earlier run left this process without its GPU (CUDA error: device-side assert triggered): "
        "run the same command again"
    )


def test_an_actor_without_its_gpu_ends_before_it_takes_a_run(monkeypatch: Any) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    leave_without_gpu()
    assert ended == []
    monkeypatch.setattr(faults, "lost_gpu", lambda: "CUDA error")
    leave_without_gpu()
    assert ended == [1]


def test_the_cause_outweighs_the_symptoms_of_its_peers() -> None:
    symptom, eaten, dead = map(failed, (RuntimeError("connection closed by peer"), MemoryError(), ActorDiedError()))
    assert [o.error_class for o in (symptom, eaten, dead)] == [BUG, OOM, PREEMPTED]
    assert worst([symptom, eaten, dead]) == eaten
    assert worst([symptom, dead]) == dead
    assert worst([symptom]) == symptom


def test_a_failure_keeps_class_message_and_traceback() -> None:
    try:
        raise KeyError("knob")
    except KeyError as error:
        outcome = failed(error)
    assert (outcome.status, outcome.objective, outcome.error_class) == ("failed", None, "bug")
    assert outcome.error_message.splitlines()[0] == "KeyError: 'knob'"
    assert "test_faults.py" in outcome.error_message


def test_low_memory_reaches_the_machine() -> None:
    payload = toy_payload("k", {})
    assert payload.with_low_memory().machine == replace(payload.machine, low_memory=True)
    assert not payload.machine.low_memory


def test_why_a_process_ended() -> None:
    """Through what Ray wraps around it: Tune's actor that the memory monitor ended, Train's workers, a node."""
    from ray.exceptions import ActorDiedError as Died
    from ray.exceptions import NodeDiedError
    from ray.exceptions import OutOfMemoryError as Monitor

    from harness.tuning.ray_adapters import LostActor

    monitor = pickle.loads(pickle.dumps(LostActor(Monitor("the node was low on memory"))))
    assert (classify(monitor), death_of(monitor)) == (OOM, OOM)
    assert "low on memory" in str(monitor)
    assert death_of(LostActor(NodeDiedError("gone"))) == NODE
    assert death_of(Died()) == PREEMPTED
    health = RuntimeError("health check")
    health.health_check_failure = Monitor("the node was low on memory")
    assert (classify(health), worst([failed(RuntimeError("peer")), failed(health)]).error_class) == (OOM, OOM)
    gone = ActorDiedError("The actor died because its node has died. Node Id: 5f")
    assert (classify(gone), death_of(gone)) == (PREEMPTED, NODE)
    assert death_of(ValueError("x")) == BUG


def test_tune_hears_of_every_death(monkeypatch: Any) -> None:
    """Ray 2.60's Tune ends the whole sweep over an error class that it does not know."""
    from ray.air.execution._internal import RayActorManager
    from ray.exceptions import ActorDiedError as Died
    from ray.exceptions import OutOfMemoryError as Monitor
    from ray.exceptions import RayActorError

    from harness.tuning.ray_adapters import every_death_is_told

    heard: list[Exception] = []
    task = SimpleNamespace(
        _tracked_actor=SimpleNamespace(actor_id=1, _on_error=None), _on_error=lambda actor, error: heard.append(error)
    )
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    real = RayActorManager._actor_task_failed
    with pytest.raises(RuntimeError, match="unexpected exception"):
        real(manager, tracked_actor_task=task, exception=Monitor("low"))
    with every_death_is_told():
        for error in (Monitor("low"), Died()):
            RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)
    assert [isinstance(error, RayActorError) for error in heard] == [True, True]
    assert RayActorManager._actor_task_failed is real
