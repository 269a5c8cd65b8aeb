"""How many loader processes a run has where nobody says: as many as its steps need, and no other batch for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from harness.api.dataset import Sample
from harness.api.method import Batch, Views
from harness.datasets import open_dataset
from harness.datasets.loading import Loader
from harness.engine.fitted_loader import PROBED, FittedLoader, processes


def small(sample: Sample, rng: np.random.Generator) -> Views:
    return Views({"view1": torch.full((3, 2, 2), float(rng.random()))})


def make(start: int, stop: int, loaders: int) -> Loader:
    dataset = open_dataset("shapes", options={"n_train": "8", "n_val": "1", "n_test": "1"})
    words = {"seed": 3, "batch": 4, "group": 2, "loaders": loaders, "start_step": start, "total_steps": stop}
    return Loader(dataset, dataset.ids("train"), small, "tags", **words)


def numbers(steps: Any) -> list[list[float]]:
    return [[float(v) for group in groups for v in group.views["view1"][:, 0, 0, 0]] for groups in steps]


@pytest.mark.parametrize(
    ("making", "using", "wanted"),
    [(0.01, 0.5, 1), (0.3, 0.5, 1), (0.5, 0.5, 2), (1.0, 0.6, 3), (9.0, 0.5, 4), (1.0, 0.0, 4)],
)
def test_processes_keep_up_with_steps(making: float, using: float, wanted: int) -> None:
    assert processes(making, using, most=4) == wanted


class Clocked:
    """A loader whose batches take `making` of the clock's seconds, the first ten times as long."""

    def __init__(self, clock: list[float], making: float, steps: range):
        self.clock, self.making, self.steps = clock, making, steps

    def __enter__(self) -> Clocked:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[list[Batch]]:
        for step in self.steps:
            self.clock[0] += self.making * (10 if step == 0 else 1)
            yield []


@pytest.mark.parametrize(("making", "using", "wanted"), [(0.2, 1.0, 1), (2.0, 1.0, 3)])
def test_the_first_steps_say_how_many_and_the_device_is_waited_for(making: float, using: float, wanted: int) -> None:
    clock, asked, waited = [0.0], [], []

    def made(start: int, stop: int, loaders: int) -> Any:
        asked.append((start, stop, loaders))
        return Clocked(clock, making, range(start, stop))

    def settle() -> None:
        waited.append(clock[0])
        clock[0] += using

    loader = FittedLoader(made, 0, 20, most=4, settle=settle, clock=lambda: clock[0])
    assert len(list(loader)) == 20
    assert asked == [(0, PROBED, 0), (PROBED, 20, wanted)]
    assert len(waited) == PROBED, "later steps are not waited for"
    assert loader.loaders == wanted


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (4, 13), (0, 3), (5, 5)])
def test_batches_are_those_of_any_loader(start: int, stop: int) -> None:
    loader = FittedLoader(make, start, stop, most=2)
    with make(start, stop, 0) as usual:
        assert numbers(loader) == numbers(usual)
    assert loader.loaders == (0 if stop - start <= PROBED else loader.loaders)
