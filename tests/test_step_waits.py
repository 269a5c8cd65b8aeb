"""The conformance test that finds, without a device, where a step would wait for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from harness.api.method import Batch, Extents, Method, OptimizerPlan, Prediction, Progress, StepOutput
from harness.testing.waiting import watch_step
from methods.parts.tensors import constant


class Toy(Method):
    """One weight, and a loss that is made by `loss`."""

    targets = ("segmentation",)

    def __init__(self, loss: Callable[[Tensor, Batch], Tensor], start: float = 0.0):
        super().__init__()
        self.weight, self.loss, self.start = torch.nn.Parameter(torch.ones(3)), loss, start

    def transform(self):
        raise NotImplementedError

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        started = progress.fraction >= self.start
        return StepOutput({"loss": self.loss(self.weight, group) if started else (self.weight * 2.0).sum()})

    def optimizers(self) -> list[OptimizerPlan]:
        return []

    def predict(self, *args, **kwargs) -> Prediction:
        raise NotImplementedError


def group() -> Batch:
    tags = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    return Batch(("a", "b"), {"view1": torch.zeros(2, 3, 4, 4)}, tags, None, None)


def item(weight: Tensor, batch: Batch) -> Tensor:
    return weight.sum() * batch.tags_BC.sum().item()


def boolean_index(weight: Tensor, batch: Batch) -> Tensor:
    return weight.expand(2, 3)[batch.tags_BC > 0].sum()


def upload(weight: Tensor, batch: Batch) -> Tensor:
    return (weight * torch.tensor([1.0, 2.0, 3.0]).to(weight.device)).sum()


def kept(weight: Tensor, batch: Batch) -> Tensor:
    return (weight * constant((1.0, 2.0, 3.5), weight)).sum() * torch.tensor(2.0)


def line(function: Callable[..., Tensor]) -> str:
    return f"{__file__}:{inspect.getsourcelines(function)[1] + 1}"


def test_a_number_asked_of_the_device_is_named_by_its_line() -> None:
    (found,) = watch_step(Toy(item), group()).waits
    assert found.startswith(f"{line(item)}: the host asks the device for a number")
    assert found.endswith("from 0 of the run on")


def test_a_shape_that_depends_on_numbers_is_found_in_the_phase_that_makes_it() -> None:
    (found,) = watch_step(Toy(boolean_index, start=0.5), group()).waits
    assert found.startswith(line(boolean_index))
    assert found.endswith("from 0.5 of the run on")


def test_a_copy_at_every_step_waits_and_a_constant_that_is_kept_does_not() -> None:
    (found,) = watch_step(Toy(upload), group()).waits
    assert found.startswith(f"{line(upload)}: aten._to_copy.default copies from the host")
    assert watch_step(Toy(kept), group()).waits == []


def test_launches_are_counted_for_each_phase_without_views() -> None:
    found = watch_step(Toy(lambda w, batch: ((w * 2.0).view(3, 1).T * 3.0).sum(), start=0.5), group(), phases=2)
    # One product more, forward and backward.
    assert found.launches[0.5] - found.launches[0.0] == 2


def test_the_host_counts_classes_label_values_and_labelled_pixels() -> None:
    label = torch.full((2, 2, 2), 255)
    label[0, 0], label[1, 1, 1] = torch.tensor([0, 7]), 7
    assert Extents.of(group().tags_BC, label) == Extents(classes=2, values=2, labelled=3)
    assert Extents.of(torch.zeros(2, 3), torch.full((2, 2, 2), 255)) == Extents(0, 0, 0)
    batch = Batch(("a", "b"), {}, group().tags_BC, label, None)
    assert batch.extents == batch.to("meta").extents == Extents(2, 2, 3)
