"""Gradients of a step: groups one by one, together, and as many as fit."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from harness.api.method import Batch, Method, OptimizerPlan, Prediction, Progress, StepOutput
from harness.engine.gradients import Gradients
from harness.engine.session import LocalSession


class Toy(Method):
    """Fits a weight to views and noise; runs out of memory in a backward pass of more than `room` groups."""

    def __init__(self, room: int = 99, takes: bool = True):
        super().__init__()
        self.w, self.room, self.takes = nn.Parameter(torch.zeros(3)), room, takes
        self.tried: list[int] = []

    @property
    def takes_groups(self) -> bool:
        return self.takes

    def transform(self):
        raise NotImplementedError

    def step(self, group, progress):
        return self.steps([group], progress, [nullcontext()])[0]

    def steps(self, groups, progress, draws):
        self.tried.append(len(groups))
        outputs = []
        for group, own in zip(groups, draws, strict=True):
            with own:
                x = group.views["x"].mean(0) + torch.randn(3)
            full = len(groups) > self.room and len(outputs) + 1 == len(groups)
            loss = ((_Full.apply(self.w) if full else self.w) - x).square().sum()
            outputs.append(StepOutput({"fit": loss}, {"mean": x}, {"first": x[0]}))
        return outputs

    def optimizers(self) -> list[OptimizerPlan]:
        return []

    def predict(self, *args, **kwargs) -> Prediction:
        raise NotImplementedError


class _Full(torch.autograd.Function):
    """Runs out of memory on the way back, once gradients of other groups are there."""

    @staticmethod
    def forward(ctx, w):
        return w.clone()

    @staticmethod
    def backward(ctx, grad):
        raise torch.OutOfMemoryError("CUDA out of memory")


def groups(count):
    return [Batch(("a",), {"x": torch.full((1, 3), float(i))}, torch.ones(1, 1), None, None) for i in range(count)]


def of(method, count=4, steps=1, **words):
    gradients = Gradients(method, LocalSession(), seed=5, groups=count, precision="fp32", **words)
    return [gradients.of(groups(count), Progress(s, 10)) for s in range(steps)][-1]


def test_together_and_one_by_one_agree():
    one, many = Toy(), Toy()
    expected, found = of(one), of(many, together=3)
    assert (one.tried, many.tried) == ([1, 1, 1, 1], [3, 1])
    torch.testing.assert_close(many.w.grad, one.w.grad)
    torch.testing.assert_close(found.values, expected.values)
    assert (found.names, found.logged) == (["fit", "first"], {"first"})
    assert all(torch.equal(a["mean"], b["mean"]) for a, b in zip(found.stats, expected.stats, strict=True))


@pytest.mark.parametrize(("room", "tried"), [(3, [4, 2, 2, 2, 2]), (1, [4, 2, 1, 1, 1, 1, 1, 1, 1, 1])])
def test_groups_that_do_not_fit_are_halved_for_good_and_the_step_is_made_anew(room, tried):
    one, many = Toy(), Toy(room)
    expected, found = of(one, steps=2), of(many, steps=2, together=4)
    assert many.tried == tried
    torch.testing.assert_close(many.w.grad, one.w.grad)
    torch.testing.assert_close(found.values, expected.values)
    assert len(found.stats) == 4


def test_a_single_group_that_does_not_fit_is_out_of_memory():
    with pytest.raises(torch.OutOfMemoryError):
        of(Toy(room=0), together=2)


def test_methods_that_do_not_take_groups_get_one():
    method = Toy(takes=False)
    of(method, together=4)
    assert method.tried == [1, 1, 1, 1]


def test_a_name_of_a_loss_and_of_a_logged_value_is_refused():
    method = Toy()
    method.steps = lambda groups, *_: [StepOutput({"a": method.w.sum()}, {}, {"a": method.w.sum()}) for _ in groups]
    with pytest.raises(ValueError, match="a is the name of a loss and of a logged value"):
        of(method)
