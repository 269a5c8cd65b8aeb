"""The same 4 groups held by 1, 2 or 4 workers, and batches made by 0, 1 or 2 loader processes: the same numbers."""

import os
import subprocess
import sys

import polars as pl
import pytest
import torch

import harness.store
from harness.testing import MethodTests, in_processes


class Cam(MethodTests):
    """`cam` on 8 images a step in groups of 2, without batch norm: that of two pooled values is 1 and -1 whatever they
    are, its gradient nothing but rounding, which AdamW blows up."""

    __test__ = False
    method = "cam"
    words = {"batch": 8, "group": 2, "decoder": "largefov"}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    tests = Cam()
    return tests.train(tests.run_config(steps=3), tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_agree_up_to_summation_order(one, workers, tmp_path):
    tests = Cam()
    state, steps = in_processes(tests, tests.run_config(steps=3), tmp_path, workers)
    method, trained = one
    for (step, name, value), (_, _, other) in zip(trained.steps, steps, strict=True):
        assert other == pytest.approx(value, rel=1e-4), (step, name)
    for name, value in method.state_dict().items():
        # AdamW divides by the root of tiny squares: summation order shows most where gradients are nearly 0.
        assert torch.allclose(state[name], value, rtol=2e-3, atol=2e-4), name


@pytest.mark.ray
def test_ray_train_with_two_workers_agrees_with_one(tmp_path):
    small = ["data.n_train=16", "data.n_val=4", "data.n_test=4", "crop=48", "batch=8", "group=2", "iterations=3"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    losses = []
    for words in (["ray=off"], ["workers=2"]):
        store = tmp_path / words[0].replace("=", "")
        command = [sys.executable, "-m", "harness.train", "method=cam", f"store={store}", *small, *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        results = harness.store.load(store)
        assert results.runs["world_size"].to_list() == [1 if words == ["ray=off"] else 2]
        losses.append(results.steps.sort("name", "step"))
    assert losses[0]["key"].to_list() == losses[1]["key"].to_list(), "workers are no part of a key"
    worst = (losses[0]["value"] - losses[1]["value"]).abs().max()
    assert isinstance(worst, float)
    assert worst < 1e-4
    assert losses[0].select(pl.col("value").is_finite().all()).item()
