"""Conformance tests for methods, ours and others: inherit `MethodTests` and name the method.

class TestMine(MethodTests):
    method = "mine"
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from harness.config import RunConfig, resolve_run, typed_knobs
from harness.datasets import open_dataset
from harness.datasets.base import IGNORE, Dataset
from harness.datasets.loading import Loader
from harness.engine.build import build_method
from harness.engine.loop import LoopConfig, Trained, train
from harness.engine.parallel import broadcast_from_first
from harness.engine.phases import Phases
from harness.engine.session import LocalSession, Session
from harness.errors import BadInput
from harness.method import Batch, Method, Progress
from harness.registry import Chosen, registry
from harness.spec import resolve
from harness.words import Words

IMAGES = 16


class GuardedDataset(Dataset):
    """A dataset that refuses the masks of training images, as a weakly supervised method must do without them."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.name, self.family = inner.name, inner.family
        self.class_names, self.has_background = inner.class_names, inner.has_background
        self.train = frozenset(inner.ids("train"))
        self.known_tags = {i: inner.tags(i) for i in self.train}

    def splits(self) -> dict[str, bool]:
        """As the inner dataset."""
        return self.inner.splits()

    def ids(self, split: str) -> tuple[str, ...]:
        """As the inner dataset."""
        return self.inner.ids(split)

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """As the inner dataset."""
        return self.inner.image(image_id)

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """The mask, or AssertionError for an image of the training split."""
        assert image_id not in self.train, f"the mask of training image {image_id} was read"
        return self.inner.mask(image_id)

    def tags(self, image_id: str) -> NDArray[np.float32]:
        """As the inner dataset, read beforehand."""
        return self.known_tags[image_id] if image_id in self.train else self.inner.tags(image_id)

    def weak(self, image_id: str, kind: str) -> NDArray[np.uint8]:
        """Sparse labels pass; full masks only through `mask`."""
        return self.mask(image_id) if kind == "masks" else self.inner.weak(image_id, kind)

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        """As the inner dataset."""
        return self.inner.fingerprint(ids)


class MethodTests:
    """What every method promises. Subclasses set `method`; the rest is for odd ones."""

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
    words: ClassVar[Mapping[str, Any]] = {}
    """Further words of the run, such as crop or backbone."""

    # ---- the run under test -------------------------------------------------------------------------------------

    def chosen(self) -> Chosen:
        """The method from the registry."""
        return registry().choose(self.method)

    def dataset(self) -> Dataset:
        """A few pictures of the embedded dataset."""
        return open_dataset("shapes", options={"n_train": str(IMAGES), "n_val": "8", "n_test": "8"})

    def run_config(self, knobs: Mapping[str, Any] | None = None, steps: int | None = None) -> RunConfig:
        """The smoke preset, shortened."""
        chosen = self.chosen()
        words = Words(tier="smoke", variant=self.variant, batch=8, group=2, iterations=steps or self.steps)
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

    def build(self, run: RunConfig, dataset: Dataset) -> Method:
        """The method as the engine builds it."""
        return build_method(run, dataset, None)

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
        method = self.build(run, dataset)
        broadcast_from_first(method, session)

        def loader(start: int) -> Iterable[list[Batch]]:
            inner = Loader(
                dataset,
                dataset.ids("train"),
                method.transform(),
                run.labels,
                seed=run.seed,
                batch=run.batch,
                group=run.group,
                loaders=0,
                rank=session.rank,
                world_size=session.world_size,
                start_step=start,
                total_steps=run.total,
            )
            return _crashing(inner, start, crash_at)

        config = LoopConfig(
            total=run.total,
            seed=run.seed,
            groups=run.batch // run.group,
            bf16=False,
            folder=folder,
            checkpoint_every=checkpoint_every,
        )
        trained = train(method, loader, config, session, Phases(), beat=lambda step, losses: None)
        return method, trained

    def group(self, run: RunConfig, dataset: Dataset, method: Method) -> Batch:
        """The first group of the first step."""
        loader = Loader(
            dataset,
            dataset.ids("train"),
            method.transform(),
            run.labels,
            seed=run.seed,
            batch=run.batch,
            group=run.group,
            loaders=0,
            start_step=0,
            total_steps=run.total,
        )
        return next(iter(loader))[0]

    # ---- the promises -------------------------------------------------------------------------------------------

    def test_every_term_is_finite_and_falls(self, tmp_path: Path) -> None:
        """Each named term is finite, and lower at the end than where it starts."""
        _, trained = self.train(self.run_config(steps=self.falling_steps), tmp_path)
        curves: dict[str, list[float]] = {}
        for _, name, value in trained.steps:
            curves.setdefault(name, []).append(value)
        assert curves
        for name, values in curves.items():
            assert np.isfinite(values).all(), name
            if name not in self.may_rise:
                n = max(1, min(5, len(values) // 3))
                assert np.mean(values[-n:]) < np.mean(values[:n]), (name, values)

    def test_same_seed_same_bytes(self, tmp_path: Path) -> None:
        """Two runs agree in every bit of the state."""
        run = self.run_config()
        _assert_same(self.train(run, tmp_path / "a")[0], self.train(run, tmp_path / "b")[0])

    def test_killed_and_resumed_same_bytes(self, tmp_path: Path) -> None:
        """A run killed between two checkpoints and started again ends as an undisturbed one; so does a run after a
        crashed one in the same process."""
        run = self.run_config()
        undisturbed, steps = self.train(run, tmp_path / "a")
        crash = self.steps - 2
        with pytest.raises(KeyboardInterrupt):
            self.train(run, tmp_path / "b", crash_at=crash, checkpoint_every=crash - 1)
        resumed, again = self.train(run, tmp_path / "b")
        assert again.resumed_at == crash - 1
        assert again.steps == steps.steps
        _assert_same(undisturbed, resumed)
        _assert_same(undisturbed, self.train(run, tmp_path / "c")[0])

    def test_two_processes_agree_with_one(self, tmp_path: Path) -> None:
        """The same groups held by two workers give the same numbers up to summation order."""
        run = self.run_config(steps=3)
        one, _ = self.train(run, tmp_path / "one")
        two = _in_two_processes(self, run, tmp_path)
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")

    def test_every_knob_acts(self, tmp_path: Path) -> None:
        """Each declared knob changes a loss, a weight or a prediction."""
        idle = []
        traces: dict[str, list[Tensor]] = {}
        for name in self.chosen().spec.config.knobs():
            beside = dict(self.together.get(name, {}))
            at = repr(sorted(beside.items()))
            if at not in traces:
                traces[at] = self._trace(beside, tmp_path / f"base-{len(traces)}")
            changed = self._trace({**beside, name: self.other_value(name)}, tmp_path / name)
            if len(changed) == len(traces[at]) and all(_equal(a, b) for a, b in zip(changed, traces[at], strict=True)):
                idle.append(name)
        assert not idle, f"knobs without any effect: {idle}"

    def test_unknown_knobs_are_refused(self) -> None:
        """A knob that the config lacks is named, with its nearest neighbours."""
        spec = self.chosen().spec
        name = next(iter(spec.config.knobs()))
        with pytest.raises(BadInput, match=name):
            typed_knobs(spec, {name + "x": 1})

    @pytest.mark.parametrize("case", ["no class", "all ignored", "one image"])
    def test_odd_batches_survive(self, case: str) -> None:
        """Images without any class, labels that are all ignored, and a single image: finite losses and gradients."""
        run = self.run_config()
        dataset = self.dataset()
        method = self.build(run, dataset)
        method.train()
        group = self.group(run, dataset, method)
        if case == "no class":
            group = dataclasses.replace(group, tags_BC=torch.zeros_like(group.tags_BC))
        elif case == "all ignored" and group.label_BHW is not None:
            group = dataclasses.replace(group, label_BHW=torch.full_like(group.label_BHW, IGNORE))
        elif case == "one image":
            group = _first_image(group)
        total = run.total
        for step in (0, total - 1):
            out = method.step(group, Progress(step, total))
            loss = torch.stack(list(out.losses.values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            assert torch.isfinite(loss), (step, out.losses)
            for name, p in method.named_parameters():
                assert p.grad is None or torch.isfinite(p.grad).all(), (step, name)

    def test_no_training_mask_is_read(self, tmp_path: Path) -> None:
        """Masks of training images never reach a method that does not declare them."""
        run = self.run_config(steps=2)
        if run.labels == "masks":
            with pytest.raises((AssertionError, BadInput), match="mask"):
                self.train(run, tmp_path, dataset=GuardedDataset(self.dataset()))
            return
        self.train(run, tmp_path, dataset=GuardedDataset(self.dataset()))

    def test_predictions_have_their_shapes(self) -> None:
        """Every declared target comes from `predict`, in range, for an image of another size too."""
        run = self.run_config()
        dataset = self.dataset()
        method = self.build(run, dataset)
        method.eval()
        images = torch.zeros(2, 3, run.crop, run.crop)
        images[1, :, ::3] = 1.0
        tags = torch.zeros(2, dataset.num_classes)
        tags[0, 0] = tags[1, 1] = 1.0
        found = method.predict(images, tags, want=frozenset(self.chosen().spec.targets))
        for name, maps in (("cam", found.cam_BCHW), ("pseudo", found.pseudo_BCHW)):
            if name in self.chosen().spec.targets:
                assert maps is not None
                assert maps.shape == (2, dataset.num_classes, run.crop, run.crop)
                assert float(maps.min()) >= 0
                assert float(maps.max()) <= 1
                assert not maps[0, 1:].any(), "a class that the tags exclude has a score"
        if "segmentation" in self.chosen().spec.targets:
            assert found.segmentation_BKhw is not None
            assert found.segmentation_BKhw.shape[:2] == (2, dataset.num_labels)

    # ---- pieces -------------------------------------------------------------------------------------------------

    def other_value(self, name: str) -> Any:
        """Another legal value of a knob: from `other`, the search space, or the type."""
        if name in self.other:
            return self.other[name]
        preset = self.run_config().knobs[name]
        target = registry().space_target(self.chosen().spec.name)
        if target is not None:
            space = resolve(target)
            for share in (0.9, 0.1):
                drawn = space.from_unit([share] * space.dims)
                if name in drawn and drawn[name] != preset:
                    return drawn[name]
        if isinstance(preset, bool):
            return not preset
        if isinstance(preset, int):
            return preset + 1
        if isinstance(preset, float):
            return preset * 0.5 if preset else 0.1
        if isinstance(preset, list):
            return preset[:-1] if len(preset) > 1 else [v * 2 for v in preset]
        raise AssertionError(f"say in `other` what else {name}={preset!r} could be")

    def _trace(self, knobs: Mapping[str, Any], folder: Path) -> list[Tensor]:
        """Losses, final state and predictions of a short run."""
        run = self.run_config(knobs)
        dataset = self.dataset()
        method, trained = self.train(run, folder, dataset=dataset)
        method.eval()
        images = torch.stack(
            [self.group(run, dataset, method).views[k][0] for k in list(self.group(run, dataset, method).views)[:1]]
        )
        tags = torch.ones(1, dataset.num_classes)
        found = method.predict(images, tags, want=frozenset(self.chosen().spec.targets))
        maps = [m for m in (found.cam_BCHW, found.pseudo_BCHW, found.segmentation_BKhw) if m is not None]
        return [torch.tensor([v for _, _, v in trained.steps]), *method.state_dict().values(), *maps]


def _crashing(inner: Iterable[list[Batch]], start: int, crash_at: int | None) -> Iterator[list[Batch]]:
    for step, groups in enumerate(inner, start):
        if step == crash_at:
            raise KeyboardInterrupt
        yield groups


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _assert_same(a: Method, b: Method) -> None:
    other = b.state_dict()
    different = [name for name, value in a.state_dict().items() if not torch.equal(value, other[name])]
    assert not different, f"bytes differ in {different[:5]}"


def _first_image(group: Batch) -> Batch:
    def cut(t: Tensor | None) -> Tensor | None:
        return None if t is None else t[:1]

    return Batch(
        group.ids[:1],
        {k: v[:1] for k, v in group.views.items()},
        group.tags_BC[:1],
        cut(group.label_BHW),
        cut(group.content_BHW),
    )


def _in_two_processes(tests: MethodTests, run: RunConfig, folder: Path) -> dict[str, Tensor]:
    """Train with two gloo workers in forked processes; the first one's state dict."""
    context = multiprocessing.get_context("fork")
    out = folder / "two.pt"
    workers = [context.Process(target=_worker, args=(tests, run, folder, rank, out)) for rank in range(2)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(timeout=300)
    assert [w.exitcode for w in workers] == [0, 0]
    state: dict[str, Tensor] = torch.load(out)
    return state


def _worker(tests: MethodTests, run: RunConfig, folder: Path, rank: int, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    method, _ = tests.train(run, folder / "two", session=LocalSession(rank=rank, world_size=2))
    if rank == 0:
        torch.save(method.state_dict(), out)
    dist.barrier()
    dist.destroy_process_group()
