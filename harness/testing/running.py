"""The runs that conformance tests make: short, on a few pictures of the embedded dataset, without Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.api.dataset import Dataset
from harness.api.method import Batch, Method
from harness.api.recipe import Train
from harness.api.registry import Chosen, registry
from harness.api.spec import resolve
from harness.cli.run_words import Words
from harness.datasets import open_dataset
from harness.datasets.loading import Loader, Source
from harness.engine.loop import LoopConfig, Trained, train
from harness.engine.parallel import broadcast_from_first
from harness.engine.phases import Phases
from harness.engine.session import LocalSession, Session
from harness.errors import BadInput
from harness.plan.build import build_method, build_network
from harness.plan.config import RunConfig
from harness.plan.knobs import typed_knobs
from harness.plan.recipes import recipe_of
from harness.plan.resolve import resolve_run

IMAGES = 16
"""Training pictures."""


class MethodRunner:
    """Builds and trains the method under test; subclasses set the attributes."""

    method: ClassVar[str] = ""
    variant: ClassVar[str] = "default"
    labels: ClassVar[str | None] = None
    steps: ClassVar[int] = 6
    """Length of the short runs."""
    falling_steps: ClassVar[int] = 40
    may_rise: ClassVar[frozenset[str]] = frozenset()
    """Terms whose fall cannot be expected in a short run, with a comment that says why."""
    other: ClassVar[Mapping[str, Any]] = {}
    """Another legal value per knob, where neither the search space nor the rule of thumb finds one."""
    together: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Knobs that act only beside others: those others' values, set in both runs that are compared."""
    refused: ClassVar[frozenset[str]] = frozenset()
    """Knobs that may not leave their defaults under `words`."""
    words: ClassVar[Mapping[str, Any]] = {}
    """Further words of the run, such as crop or backbone."""
    folders: ClassVar[frozenset[str]] = frozenset()
    """Knobs that name folders of the user's: no other value does anything here."""
    stage: ClassVar[str | None] = None
    """The training stage of the recipe that is tested; None: the first one."""
    predicts: ClassVar[frozenset[str]] = frozenset()
    """Targets that its network predicts besides those that are scored from it: where they are scored from files."""

    def chosen(self) -> Chosen:
        """The method from the registry."""
        return registry().choose(self.method)

    def dataset(self) -> Dataset:
        """A few pictures of the embedded dataset."""
        return open_dataset("shapes", options={"n_train": str(IMAGES), "n_val": "8", "n_test": "8"})

    def run_config(self, knobs: Mapping[str, Any] | None = None, steps: int | None = None) -> RunConfig:
        """The smoke preset, shortened."""
        chosen = self.chosen()
        words = Words(tier="smoke", variant=self.variant, crop=48, batch=4, group=2, iterations=steps or self.steps)
        words = dataclasses.replace(words, **self.words)
        labels = self.labels or chosen.spec.labels[0]
        run = resolve_run(
            chosen,
            words,
            family="shapes",
            dataset="shapes",
            labels=labels,
            precision="fp32",
            options={},
            knobs={},
            seed=3,
        )
        return run.with_knobs(knobs or {}, 3)

    def training(self) -> Train:
        """The training stage under test."""
        recipe = recipe_of(self.run_config())
        found = recipe.training[0] if self.stage is None else recipe.stage(self.stage)
        assert isinstance(found, Train)
        return found

    @property
    def targets(self) -> frozenset[str]:
        """The targets that its network predicts."""
        recipe, network = recipe_of(self.run_config()), self.training().network
        return self.predicts | {t for t in recipe.targets if recipe.network_of(t) == network}

    def build(self, run: RunConfig, dataset: Dataset) -> Method:
        """The network of the stage as the engine builds it."""
        if self.stage is None:
            return build_method(run, dataset, None)
        return build_network(run, self.training(), dataset, None, {})

    def source(self, run: RunConfig, dataset: Dataset) -> Source:
        """What is read of an image besides image and tags; for stages that read what earlier ones wrote."""
        return Source(run.labels)

    def train(
        self,
        run: RunConfig,
        folder: Path,
        *,
        session: Session | None = None,
        dataset: Dataset | None = None,
        crash_at: int | None = None,
        checkpoint_every: int | None = None,
    ) -> tuple[Method, Trained]:
        """Train as the engine does, without Ray; `crash_at` raises KeyboardInterrupt when that step's batch is due."""
        torch.set_num_threads(1)
        session = session or LocalSession()
        dataset = dataset or self.dataset()
        method = self.build(run, dataset).to(session.device)
        broadcast_from_first(method, session)

        def loader(start: int) -> Iterable[list[Batch]]:
            inner = self.loader(run, dataset, method, session, start)
            return _crashing(inner, start, crash_at)

        config = LoopConfig(
            total=run.own_steps,
            seed=run.seed,
            groups=run.batch // run.group,
            precision=run.precision,
            folder=folder,
            checkpoint_every=checkpoint_every,
        )
        trained = train(method, loader, config, session, Phases(), report_progress=lambda step, losses: None)
        return method, trained

    def loader(self, run: RunConfig, dataset: Dataset, method: Method, session: Session, start: int) -> Loader:
        """Training batches of one worker from step `start` on, made in this process."""
        return Loader(
            dataset,
            dataset.ids("train"),
            method.transform(),
            dataclasses.replace(self.source(run, dataset), background_tags=method.background_tags),
            seed=run.seed,
            batch=run.batch,
            group=run.group,
            loaders=0,
            rank=session.rank,
            world_size=session.world_size,
            start_step=start,
            total_steps=run.own_steps,
        )

    def group(self, run: RunConfig, dataset: Dataset, method: Method) -> Batch:
        """The first group of the first step, with finished views."""
        return method.on_device(next(iter(self.loader(run, dataset, method, LocalSession(), 0)))[0])

    def other_values(self, name: str) -> list[Any]:
        """Other legal values of a knob, likely ones first: from `other`, or the search space and then its type."""
        if name in self.other:
            return [self.other[name]]
        preset = self.run_config().knobs[name]
        found: list[Any] = []
        target = registry().space_target(self.chosen().spec.name)
        if target is not None:
            space = resolve(target)
            drawn = [space.from_unit([share] * space.dims) for share in (0.9, 0.1)]
            found += [d[name] for d in drawn if name in d]
        if isinstance(preset, bool):
            found.append(not preset)
        elif isinstance(preset, int):
            found += [preset + 1, 2 * preset, max(1, preset // 2)]
        elif isinstance(preset, float):
            found += [preset * 0.5, preset * 2, 0.5, 0.9, 0.0]
        elif isinstance(preset, list):
            found += [preset[:-1]] if len(preset) > 1 else [[v * 2 for v in preset]]
        assert found, f"say in `other` what else {name}={preset!r} could be"
        return [v for v in found if v != preset and self._legal(name, v)]

    def _legal(self, name: str, value: Any) -> bool:
        try:
            typed_knobs(self.chosen().spec, {**self.run_config().knobs, name: value})
        except BadInput:
            return False
        return True

    def _acts(self, knobs: Mapping[str, Any], base: list[Tensor], folder: Path) -> bool:
        trace = self._trace(knobs, folder)
        return len(trace) != len(base) or not all(equal(a, b) for a, b in zip(trace, base, strict=True))

    def _trace(self, knobs: Mapping[str, Any], folder: Path) -> list[Tensor]:
        """Losses, final state and predictions of a short run."""
        run = self.run_config(knobs)
        dataset = self.dataset()
        method, trained = self.train(run, folder, dataset=dataset)
        method.eval()
        images = next(iter(self.group(run, dataset, method).views.values()))[:1]
        tags = torch.ones(1, dataset.num_classes)
        found = method.predict(images, tags, want=self.targets)
        maps = [m for m in (found.cam_BCHW, found.pseudo_BCHW, found.segmentation_BKhw) if m is not None]
        return [torch.tensor([v for _, _, v in trained.steps]), *method.state_dict().values(), *maps]


def _crashing(inner: Iterable[list[Batch]], start: int, crash_at: int | None) -> Iterator[list[Batch]]:
    for step, groups in enumerate(inner, start):
        if step == crash_at:
            raise KeyboardInterrupt
        yield groups


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree in shape and every bit."""
    return a.shape == b.shape and torch.equal(a, b)
