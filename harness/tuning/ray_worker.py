"""What runs inside a Tune actor: one trial, in the actor itself or as a nested trainer of several workers."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import ray.train
from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from harness.api.spec import resolve
from harness.engine.heartbeat import read_heartbeat
from harness.engine.leaving import MACHINE, NOTICE, Left
from harness.engine.saying import said
from harness.engine.session import Session
from harness.plan.payload import Payload
from harness.plan.studies import Outcome
from harness.tuning.faults import (
    LEFT,
    NODE,
    OOM,
    PREEMPTED,
    attempt,
    clean_process,
    death_of,
    failed,
    leave_without_gpu,
    worst,
)
from harness.tuning.nodes import Home, UnfitNode, unfit
from harness.tuning.restarts import Deaths, Position

Trainer: Any = TorchTrainer
"""Train V2, which this Ray runs; the annotations of the package are those of V1."""
DIED, SMALLER = "died", "smaller"
"""Of a report to Tune: of what a worker of the run died, after which it starts again, and whether with less memory."""
DRIVER_CPU = 0.01
"""What the Tune actor of a nested trainer holds while its workers run; taken off its workers' share."""


@dataclass(frozen=True)
class JobMessage:
    """A job on its way to an actor; JSON, so that nothing is pickled by value."""

    id: int
    execute: str
    payload: Payload
    rungs: tuple[float, ...]
    threads: int
    cores: float
    gpus: float
    workers: int
    folder: str
    """Shared folder of this run's Train snapshots, removed afterwards."""
    notice: str
    """File that the driver makes when its runs are to leave."""
    home: Home | None = None
    """On a cluster: what its nodes must have."""

    def to_config(self) -> dict[str, Any]:
        """The Tune config that carries the message."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["payload"] = self.payload.to_dict()
        values["home"] = None if self.home is None else self.home.to_dict()
        return {"id": self.id, "message": json.dumps(values)}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> JobMessage:
        """The message of a Tune config."""
        values = json.loads(config["message"])
        values["home"] = None if values["home"] is None else Home.of(values["home"])
        return cls(**{**values, "rungs": tuple(values["rungs"]), "payload": Payload.from_dict(values["payload"])})

    @property
    def worker_resources(self) -> dict[str, float]:
        """Resources of one worker."""
        cpus = self.cores if self.workers == 1 else self.cores - DRIVER_CPU
        return {"CPU": cpus, **({"GPU": self.gpus} if self.gpus else {})}


def run_trial(config: Mapping[str, Any]) -> None:
    """The Tune trainable: runs the message's job and reports its outcome as data."""
    leave_without_gpu()
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    message = JobMessage.of(config)
    _refuse_unfit(message.home)
    _stay_out_of_a_leaving_machine()
    NOTICE.watch(Path(message.notice), MACHINE)
    outcome = _in_this_actor(message) if message.workers == 1 else _nested(message)
    objective = outcome.objective if outcome.objective is not None else -1.0
    tune.report({"reached": 100 * outcome.reached, "objective": objective, "outcome": json.dumps(outcome.to_dict())})


def _refuse_unfit(home: Home | None) -> None:
    """Raises UnfitNode on a machine that has joined since the sweep began and cannot take its runs."""
    if home is not None and home.text not in _FIT and (why := unfit(home)):
        raise UnfitNode(f"{platform.node()}: {why}")
    _FIT.update({home.text} if home is not None else ())


def _stay_out_of_a_leaving_machine() -> None:
    """Nothing starts on a machine that is about to go: it waits for its end, which costs a run nothing."""
    while MACHINE.expanduser().exists():
        time.sleep(1.0)


_FIT: set[str] = set()
"""Marks of the drivers for which this process has looked around already."""


def _execute(message: JobMessage, payload: Payload, session: Session) -> Outcome:
    outcome: Outcome = resolve(message.execute)(payload, session)
    return outcome


def _in_this_actor(message: JobMessage) -> Outcome:
    session = TuneSession(device="cuda:0" if message.gpus else "cpu", rungs=message.rungs)

    def loop(config: Mapping[str, Any]) -> Outcome:
        mine = JobMessage.of(config)
        return attempt(lambda payload, own: _execute(mine, payload, own), mine.payload, session, mine.threads)

    trainer = Trainer(
        loop,
        train_loop_config=message.to_config(),
        scaling_config=ScalingConfig(num_workers=0),
        run_config=ray.train.RunConfig(storage_path=message.folder),
    )
    outcome = trainer.fit().return_value
    assert isinstance(outcome, Outcome)
    return outcome


class FailedInside(Exception):
    """A worker's run failed, its process lives: the fields of the outcome. Only here the causes of an error are known,
    and its traceback: neither travels."""

    def outcome(self) -> Outcome:
        """What it failed with."""
        return Outcome(**self.args[0])


def worker_loop(config: Mapping[str, Any]) -> dict[str, Any]:
    """The loop of one of several Train workers. Raises FailedInside."""
    message = JobMessage.of(config)
    _stay_out_of_a_leaving_machine()
    NOTICE.watch(Path(message.notice), MACHINE)
    clean_process(message.threads)
    context = ray.train.get_context()
    session = TrainSession(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=str(get_device()),
        rungs=message.rungs,
    )
    try:
        outcome = _execute(message, message.payload, session)
    except Left as left:
        outcome = Outcome("failed", None, 0.0, LEFT, str(left))
    except Exception as error:
        raise FailedInside(replace(failed(error), notes=said()).to_dict()) from error
    return replace(outcome, notes=said()).to_dict()


def _nested(message: JobMessage) -> Outcome:
    """Starts the workers, and again as `Deaths` allows where they died."""
    payload, deaths = message.payload, Deaths()
    while True:
        before = _heard(payload).get("updated")
        try:
            return _fit(replace(message, payload=payload))
        except Exception as error:
            # A failed run, or machinery that broke under it. When Tune stops the trial, its report never arrives.
            causes = list(getattr(error, "worker_failures", {}).values()) or [error]
            outcome = worst([c.outcome() if isinstance(c, FailedInside) else failed(c) for c in causes])
            dead = [death_of(c) for c in causes if not isinstance(c, FailedInside)]
        cause = NODE if outcome.error_class == PREEMPTED and NODE in dead else outcome.error_class
        # A disk that is full is no death: starting again would not help.
        if cause != OOM and not (cause in (PREEMPTED, NODE) and dead):
            return outcome
        heartbeat = _heard(payload)
        end = deaths.after(
            cause, Position.of(heartbeat) if heartbeat.get("updated") != before else None, outcome.error_message
        )
        if end is not None:
            return end
        if deaths.low_memory:
            payload = payload.with_low_memory()
        tune.report({DIED: cause, SMALLER: deaths.low_memory})


def _heard(payload: Payload) -> Mapping[str, Any]:
    return read_heartbeat(payload.machine.store, payload.key)


def _fit(message: JobMessage) -> Outcome:
    # A name of its own: Train would resume from the snapshot of an earlier attempt of the same name.
    name = f"train-{uuid.uuid4().hex[:8]}"
    callbacks: list[Any] = []
    if message.rungs:
        from ray.tune.integration.ray_train import TuneReportCallback

        callbacks.append(TuneReportCallback())
    trainer = Trainer(
        worker_loop,
        train_loop_config=message.to_config(),
        torch_config=TorchConfig(backend="nccl" if message.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=message.workers, use_gpu=bool(message.gpus), resources_per_worker=message.worker_resources
        ),
        run_config=ray.train.RunConfig(name=name, storage_path=message.folder, callbacks=callbacks),
    )
    try:
        value = trainer.fit().return_value
    finally:
        shutil.rmtree(Path(message.folder) / name, ignore_errors=True)
    return Outcome(**value)


@dataclass(frozen=True)
class TuneSession:
    """A one-worker run inside a reused Tune actor."""

    device: str = "cpu"
    rungs: tuple[float, ...] = ()
    rank: int = 0
    world_size: int = 1

    def report(self, reached: float, objective: float) -> None:
        """Reports to Tune, which raises SystemExit here when the trial is stopped."""
        from ray import tune

        tune.report({"reached": 100 * reached, "objective": objective})


@dataclass(frozen=True)
class TrainSession:
    """One of several Train workers of a run; `torch.distributed` is initialised."""

    rank: int
    world_size: int
    device: str = "cpu"
    rungs: tuple[float, ...] = ()

    def report(self, reached: float, objective: float) -> None:
        """Reports to Train, which passes the first worker's figures on to Tune. A stopped run is torn down."""
        import ray.train

        ray.train.report({"reached": 100 * reached, "objective": objective})
