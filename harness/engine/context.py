"""What a stage may use: the run, its data, the worker's session, and ways to build and load the method."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from harness.api.dataset import Dataset, Sample
from harness.api.method import Batch, Method, Transform, Views
from harness.datasets.loading import Loader
from harness.datasets.splits import SplitPlan
from harness.engine.checkpoint import Artifact, load_weights
from harness.engine.heartbeat import Heartbeat
from harness.engine.parallel import broadcast_from_first
from harness.engine.phases import Phases
from harness.engine.scorer import Scorer
from harness.engine.session import Session
from harness.errors import BadInput
from harness.plan.build import build_method
from harness.plan.config import Machine, RunConfig
from harness.plan.payload import Origin, PlannedData
from harness.store import Store


@dataclass(frozen=True)
class TimedViews:
    """A method's transform whose time is counted as its own; only where views are made in the training process."""

    transform: Transform
    phases: Phases

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        with self.phases.of("views"):
            return self.transform(sample, rng)


@dataclass
class Context:
    """One run on one worker."""

    run: RunConfig
    key: str
    machine: Machine
    dataset: Dataset
    splits: SplitPlan
    session: Session
    phases: Phases
    heartbeat: Heartbeat
    store: Store
    data: PlannedData
    """As it was planned."""
    origin: Origin = field(default_factory=Origin)
    in_use: ExitStack = field(default_factory=ExitStack)
    """Locks on the stages' folders that this run reads; closing it lets others remove them."""
    folder: str = ""
    """Of the stage that is running, in the store: where its checkpoints lie."""
    _live: tuple[str, Method] | None = None

    def report_progress(self, stage: str, step: int, total: int, losses: dict[str, float] | None = None) -> None:
        """Tell whoever watches where this run is."""
        if self.session.rank == 0:
            extra: dict[str, Any] = {"losses": losses} if losses else {}
            self.heartbeat.write(
                key=self.key,
                method=self.run.method,
                seed=self.run.seed,
                stage=stage,
                step=step,
                total=total,
                folder=self.folder,
                **asdict(self.origin),
                **extra,
            )

    def check_data(self) -> None:
        """Raises BadInput naming what of the data is not as it was planned; what is read here is remembered by file."""
        with self.phases.of("start"):
            changes = self.data.changes(self.dataset, self.splits, self.run.labels)
        if changes:
            raise BadInput(changes)

    def scorer(self) -> Scorer:
        """What scoring sees of this run."""
        run = self.run
        return Scorer(
            dataset=self.dataset,
            inference=run.inference,
            crop=run.crop,
            cam_threshold=run.cam_threshold,
            bf16=run.precision == "bf16",
            session=self.session,
            threads=self.machine.threads,
            report_progress=self.report_progress,
        )

    def build(self) -> Method:
        """The method of this run, freshly initialised from the run's seed, on the worker's device."""
        with self.phases.of("build"):
            method = build_method(self.run, self.dataset, self.machine.weights)
            method.to(self.session.device)
            broadcast_from_first(method, self.session)
            return method

    def keep_live(self, digest: str, method: Method) -> None:
        """Remember a method whose weights have this digest, so that the next stage need not load them."""
        self._live = (digest, method)

    def trained(self, weights: Artifact) -> Method:
        """The method with the weights of a training stage."""
        if self._live is not None and self._live[0] == weights.digest:
            return self._live[1]
        method = self.build()
        load_weights(weights.path, method)
        self.keep_live(weights.digest, method)
        return method

    def loader(self, method: Method, start_step: int) -> Iterable[list[Batch]]:
        """Training batches of this worker from `start_step` on."""
        run, machine = self.run, self.machine
        transform = method.transform()
        return Loader(
            self.dataset,
            self.splits.train,
            transform if machine.loaders else TimedViews(transform, self.phases),
            run.labels,
            seed=run.seed,
            batch=run.batch,
            group=run.group,
            loaders=machine.loaders,
            rank=self.session.rank,
            world_size=self.session.world_size,
            start_step=start_step,
            total_steps=run.total,
            pin_memory=self.session.device.startswith("cuda"),
        )
