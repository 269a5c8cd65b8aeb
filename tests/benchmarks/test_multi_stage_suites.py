"""SIPE's head and the random walk equal plain restatements that are as wasteful as what they stand for."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.reference.dense_walk import dense_walk
from benchmarks.structure import largest, shapes
from benchmarks.suites import random_walk as walk_suite
from benchmarks.suites import sipe
from methods.parts.ops.random_walk import random_walk


@pytest.mark.parametrize("suite", [sipe, walk_suite])
def test_both_sides_agree(suite):
    for case in suite.cases(quick=True):
        assert "the reference" in case.equal()
        assert case.agree(case.reference(), case.ours())


def test_ours_builds_no_such_tensor():
    case = sipe.cases(quick=True)[0]
    cells, labels, images = 16 * 16, 21, 2
    assert (images, labels, cells, cells) in shapes(case.reference)
    assert torch.Size(largest(case.ours)).numel() == images * 256 * cells, "the deepest features themselves"


def test_a_wrong_side_is_seen():
    case = sipe.cases(quick=True)[0]
    loss, *gradients = case.ours()
    with pytest.raises(AssertionError, match="losses"):
        case.agree((loss, *gradients), (loss * 1.01, *gradients))
    with pytest.raises(AssertionError, match="gradients"):
        case.agree((loss, *gradients), (loss, gradients[0] * 1.01, gradients[1]))
    maps, edge = walk_suite.inputs_of((12, 15), 2)
    walk = walk_suite.cases(quick=True)[0]
    with pytest.raises(AssertionError, match="apart"):
        walk.agree(dense_walk(maps, edge), random_walk(maps, edge, exp_times=5))


def test_an_expanded_view_is_no_tensor_that_is_filled():
    assert largest(lambda: torch.ones(4).expand(1000, 4) is None) == (4,)


def test_a_walk_at_voc_size_takes_less_than_its_goal():
    maps, edge = walk_suite.inputs_of((94, 125), 3)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        with torch.no_grad():
            random_walk(maps, edge)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.7
