"""What a stage may use: the run, its data, the worker's session, and ways to build and load the method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from harness.api.dataset import Dataset, Sample
from harness.api.method import Batch, Method, Transform, Views
from harness.api.recipe import NETWORK, Recipe, Train
from harness.datasets.io.image_files import ExtraReader, read
from harness.datasets.loading import Loader, Source
from harness.datasets.splits import SplitPlan
from harness.datasets.tools.given import GivenFolder
from harness.engine.checkpoint import Artifact, load_weights
from harness.engine.fitted_loader import FittedLoader
from harness.engine.heartbeat import Heartbeat
from harness.engine.parallel import broadcast_from_first
from harness.engine.phases import Phases
from harness.engine.scorer import Scorer
from harness.engine.session import Session
from harness.errors import BadInput
from harness.plan.build import build_network
from harness.plan.config import Machine, RunConfig
from harness.plan.folders import folder_changes, given_folders
from harness.plan.payload import Origin, PlannedData
from harness.plan.recipes import knobs_of, run_of, whole_recipe
from harness.store import Store

MOST_LOADERS = 4
"""Processes of one worker where nobody says how many, unless it has more threads."""


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
    recipe: Recipe
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
    made: dict[str, Artifact] = field(default_factory=dict)
    """What the stages that are done left, by the name of the network or artefact."""
    by_stage: dict[str, float] = field(default_factory=dict)
    """Seconds of this attempt by stage."""
    reused: float = 0.0
    """Seconds that the stages took which this run found done."""
    _live: dict[str, tuple[str, Method]] = field(default_factory=dict)
    _described: dict[str, dict[str, Any]] = field(default_factory=dict)

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
            changes += folder_changes(self.run, self.given, self.splits)
        if changes:
            raise BadInput(changes)

    def scorer(self, network: str | None = None) -> Scorer:
        """What scoring sees of this run, at the training size of one of its networks, or at its own."""
        run = self.run if network is None else run_of(self.run, self.recipe.maker(network))
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

    def build(self, stage: Train) -> Method:
        """The network that a stage trains, freshly initialised from the run's seed, on the worker's device."""
        earlier = {name: self.network(name).requires_grad_(False) for name in stage.networks}
        weights = self.machine.weights
        if stage.network != NETWORK:
            weights = self.machine.network_weights.get(stage.network)
        with self.phases.of("build"):
            method = build_network(self.run, stage, self.dataset, weights, earlier)
            method.to(self.session.device)
            broadcast_from_first(method, self.session)
        self._described[stage.network] = method.describe()
        return method

    def described(self, name: str) -> dict[str, Any]:
        """Values fitted to the size of a network. Called by all workers: it is built where it was not yet."""
        if name not in self._described:
            self.network(name)
        return self._described[name]

    def keep_live(self, name: str, digest: str, method: Method) -> None:
        """Remember a network whose weights have this digest, so that the next stage need not load them."""
        self._live[name] = (digest, method)

    def forget(self) -> None:
        """Let go of the networks of earlier stages: another one is trained and needs the room."""
        self._live.clear()

    def network(self, name: str) -> Method:
        """A trained network of this run, in eval mode."""
        stage, weights = self.recipe.maker(name), self.made[name]
        assert isinstance(stage, Train)
        live = self._live.get(name)
        if live is None or live[0] != weights.digest:
            method = self.build(stage)
            load_weights(weights.path, method)
            live = self._live[name] = (weights.digest, method)
        return live[1].eval()

    def loader(self, stage: Train, method: Method, start_step: int) -> Iterable[list[Batch]]:
        """Training batches of a stage and this worker from `start_step` on."""
        run, machine = run_of(self.run, stage), self.machine
        transform = method.transform()
        source = Source(
            run.labels,
            label=None if stage.label is None else self.reader(stage.label),
            extra={name: self.reader(artefact) for name, artefact in stage.extra.items()},
            background_tags=method.background_tags,
        )
        cuda = self.session.device.startswith("cuda")

        def make(start: int, stop: int, loaders: int) -> Loader:
            return Loader(
                self.dataset,
                self.splits.train,
                transform if loaders else TimedViews(transform, self.phases),
                source,
                seed=run.seed,
                batch=run.batch,
                group=run.group,
                loaders=loaders,
                rank=self.session.rank,
                world_size=self.session.world_size,
                start_step=start,
                total_steps=stop,
                pin_memory=cuda,
            )

        if machine.loaders is not None:
            return make(start_step, run.own_steps, machine.loaders)
        settle = torch.cuda.synchronize if cuda else None
        return FittedLoader(make, start_step, run.own_steps, most=max(MOST_LOADERS, machine.threads), settle=settle)

    def reader(self, artefact: str) -> ExtraReader:
        """Reads of each image what travels with it from an earlier stage's files or a user's."""
        return ExtraReader(self.files_of(artefact), self.dataset.num_classes)

    @cached_property
    def read(self) -> frozenset[str]:
        """Names of what any stage of the whole recipe reads, whether or not this run goes as far."""
        return frozenset(name for stage in whole_recipe(self.run).stages for name in stage.reads)

    @cached_property
    def given(self) -> Mapping[str, GivenFolder]:
        """By artefact, the folders that a user gave."""
        return given_folders(self.run, self.machine.folders, self.dataset)

    def files_of(self, artefact: str) -> Callable[[str], Any]:
        """Reads an image's file of an artefact, of an earlier stage or a user. It raises BadInput naming the file."""
        given = self.given.get(artefact)
        return partial(read, self.made[artefact].path) if given is None else given.read

    def digest_of(self, name: str) -> str:
        """Digest of a network's weights, or of the files of an artefact."""
        given = {g.name: str(knobs_of(self.run, g)[g.knob]) for g in self.recipe.given}
        return given[name] if name in given else self.made[name].digest
