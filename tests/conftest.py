"""One thread per process: the numbers that tests compare, and the two cores that they share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Under `uv run` Ray would start every worker through uv; the harness says so itself, tests that start Ray bare do not.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import pytest
import torch


def pytest_collection_modifyitems(items):
    """With several processes (`-n auto --dist loadgroup`) one of them runs all that start Ray or share a sweep."""
    for item in items:
        if item.get_closest_marker("ray") or "undisturbed" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
