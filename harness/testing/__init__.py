"""Conformance tests for methods and datasets, ours and others: inherit `MethodTests` or `DatasetTests` and name it.

class TestMine(MethodTests):
    method = "mine"

`build` makes a method on an encoder that is given as a module, ready for one `step`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from harness.api.method import Batch, Method, Progress
from harness.api.vocabulary import IGNORE
from harness.engine.session import LocalSession
from harness.errors import BadInput
from harness.plan.config import RunConfig
from harness.plan.knobs import typed_knobs
from harness.plan.seeding import Draws
from harness.testing.building import build
from harness.testing.datasets import DatasetTests
from harness.testing.guard import GuardedDataset
from harness.testing.running import MethodRunner
from harness.testing.waiting import watch_step

__all__ = ["DatasetTests", "GuardedDataset", "MethodRunner", "MethodTests", "build", "in_processes"]


class MethodTests(MethodRunner):
    """What every method promises. Subclasses set `method`; the rest is for odd ones."""

    def test_every_term_is_finite_and_falls(self, tmp_path: Path) -> None:
        """Each named term is finite, and lower at the end than where it starts."""
        _, trained = self.train(self.run_config(steps=self.falling_steps), tmp_path)
        curves: dict[str, list[float]] = {}
        for _, name, value in trained.steps:
            curves.setdefault(name, []).append(value)
        assert set(curves) - trained.logged
        for name, values in curves.items():
            assert np.isfinite(values).all(), name
            if name not in self.may_rise | trained.logged:
                n = max(1, min(5, len(values) // 3))
                assert np.mean(values[-n:]) < np.mean(values[:n]), (name, values)

    def test_no_step_waits_for_the_device(self) -> None:
        """No place of a step asks the device for a number or copies to it, in any phase; the host counts beforehand
        what a shape depends on (`Batch.extents`)."""
        run, dataset = self.run_config(), self.dataset()
        method = self.build(run, dataset)
        group = self.group(run, dataset, method)
        assert not watch_step(method, group).waits
        if method.takes_groups:
            assert not watch_step(method, group, group, phases=2).waits

    def test_groups_together_agree_with_one_by_one(self) -> None:
        """A method that takes groups together gives each the losses of a step of its own, up to summation order, and
        leaves the generators where the step does."""
        run, dataset = self.run_config(), self.dataset()
        method = self.build(run, dataset).train()
        if not method.takes_groups:
            return
        groups, late = [self.group(run, dataset, method)] * 2, Progress(run.own_steps - 1, run.own_steps)
        apart, together = ([Draws("cpu", 7, i) for i in range(2)] for _ in range(2))
        expected, ends = [], []
        for group, own in zip(groups, apart, strict=True):
            with own:
                expected.append(method.step(group, late).losses)
        found = [out.losses for out in method.steps(groups, late, together)]
        for draws in (apart, together):
            for own in draws:
                with own:
                    ends.append(float(torch.rand(())))
        assert ends[:2] == ends[2:], "other numbers are drawn"
        for one, other in zip(expected, found, strict=True):
            assert one.keys() == other.keys()
            for name, loss in one.items():
                assert torch.allclose(other[name], loss, rtol=1e-3, atol=1e-5), (name, float(other[name]), float(loss))

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
        two, _ = in_processes(self, run, tmp_path, 2)
        for name, value in one.state_dict().items():
            assert torch.allclose(two[name], value, rtol=2e-3, atol=2e-4), name

    def test_every_knob_acts(self, tmp_path: Path) -> None:
        """Each declared knob that the stage reads changes a loss, a weight or a prediction, or is refused."""
        idle = []
        traces: dict[str, list[Tensor]] = {}
        for name, field in self.chosen().spec.config.knobs().items():
            stages = field.metadata.get("stages", ())
            if name in self.folders or (stages and self.training().name not in stages):
                continue
            beside = dict(self.together.get(name, {}))
            at = repr(sorted(beside.items()))
            if at not in traces:
                traces[at] = self._trace(beside, tmp_path / f"base-{len(traces)}")
            values = self.other_values(name)
            if name in self.refused:
                with pytest.raises(BadInput, match=name):
                    self._trace({**beside, name: values[0]}, tmp_path / name)
                continue
            if not any(
                self._acts({**beside, name: v}, traces[at], tmp_path / f"{name}-{n}") for n, v in enumerate(values)
            ):
                idle.append(f"{name} (tried {values})")
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
        total = run.own_steps
        for step in (0, total - 1):
            out = method.step(group, Progress(step, total))
            loss = torch.stack(list(out.losses.values())).sum()
            loss.backward()
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
        found = method.predict(images, tags, want=self.targets)
        for name, maps in (("cam", found.cam_BCHW), ("pseudo", found.pseudo_BCHW)):
            if name in self.targets:
                assert maps is not None
                assert maps.shape == (2, dataset.num_classes, run.crop, run.crop)
                assert float(maps.min()) >= 0
                assert float(maps.max()) <= 1
                assert not maps[0, 1:].any(), "a class that the tags exclude has a score"
        if "segmentation" in self.targets:
            assert found.segmentation_BKhw is not None
            assert found.segmentation_BKhw.shape[:2] == (2, dataset.num_labels)


def _assert_same(a: Method, b: Method) -> None:
    other = b.state_dict()
    different = [name for name, value in a.state_dict().items() if not torch.equal(value, other[name])]
    assert not different, f"bytes differ in {different[:5]}"


def _first_image(group: Batch) -> Batch:
    return dataclasses.replace(group.of_tensors(lambda t: t[:1]), ids=group.ids[:1])


def in_processes(
    tests: MethodRunner, run: RunConfig, folder: Path, workers: int
) -> tuple[dict[str, Tensor], list[tuple[int, str, float]]]:
    """Train with several gloo workers in forked processes: the first one's state dict and logged losses."""
    context = multiprocessing.get_context("fork")
    out = folder / "state.pt"
    processes = [
        context.Process(target=_worker, args=(tests, run, folder, rank, workers, out)) for rank in range(workers)
    ]
    for p in processes:
        p.start()
    for p in processes:
        p.join(timeout=300)
    assert [p.exitcode for p in processes] == [0] * workers
    state, steps = torch.load(out)
    return state, steps


def _worker(tests: MethodRunner, run: RunConfig, folder: Path, rank: int, workers: int, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers)
    session = LocalSession(rank=rank, world_size=workers)
    method, trained = tests.train(run, folder / "together", session=session)
    if rank == 0:
        torch.save((method.state_dict(), trained.steps), out)
    dist.barrier()
    dist.destroy_process_group()
