"""The same 4 groups held by 1, 2 or 4 workers, also by one number of them after another: the same numbers."""

import itertools
import os
import subprocess
import sys

import polars as pl
import pytest
import torch
import torch.distributed as dist

import harness.store
from harness.engine.checkpoint import found_checkpoints
from harness.engine.leaving import NOTICE, Left
from harness.engine.session import LocalSession
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
    agree(one, state, steps)


def agree(one, state, steps):
    method, trained = one
    for (step, name, value), (_, _, other) in zip(trained.steps, steps, strict=True):
        assert other == pytest.approx(value, rel=1e-4), (step, name)
    for name, value in method.state_dict().items():
        # AdamW divides by the root of tiny squares: summation order shows most where gradients are nearly 0.
        assert torch.allclose(state[name], value, rtol=2e-3, atol=2e-4), name


def test_one_worker_begins_and_two_go_on(one, tmp_path):
    tests = Cam()
    run = tests.run_config(steps=3)
    with pytest.raises(KeyboardInterrupt):
        tests.train(run, tmp_path / "together", crash_at=2, checkpoint_every=1)
    assert [p.name for p in found_checkpoints(tmp_path / "together")] == ["step-00000001", "step-00000002"]
    agree(one, *in_processes(tests, run, tmp_path, 2))


def leave(rank, folder):
    """One of two workers, of which the second is told to leave at step 2."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/leaving", rank=rank, world_size=2)
    looks, tests = itertools.count(1), Cam()
    NOTICE.told = lambda: rank == 1 and next(looks) == 2
    with pytest.raises(Left, match="it wrote a checkpoint at step 2 of 3: no step is lost"):
        tests.train(tests.run_config(steps=3), folder / "together", session=LocalSession(rank, 2))
    assert found_checkpoints(folder / "together"), "a worker left before the checkpoint was there"
    dist.destroy_process_group()


def test_two_workers_leave_at_the_same_step_and_one_goes_on(one, tmp_path):
    torch.multiprocessing.start_processes(leave, (tmp_path,), nprocs=2, start_method="fork")
    tests = Cam()
    method, trained = tests.train(tests.run_config(steps=3), tmp_path / "together")
    assert trained.resumed_at == 2
    agree(one, method.state_dict(), trained.steps)


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
