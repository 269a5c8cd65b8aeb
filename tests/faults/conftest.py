"""What the tables of faults share: an undisturbed sweep, and rows that have been seen are not run again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_table import seen
from sweeps import WORDS, Bench


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a sweep that nothing disturbed."""
    store = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "harness.sweep", *WORDS, f"store={store}", "ray=off", "mlflow=off"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path):
    """A row of the table that the test's file is named after."""
    table, name = request.path.stem.removeprefix("test_"), request.node.name.removeprefix("test_")
    if name in seen(table):
        pytest.skip(f"seen already; without its entry in seen/{table}.json it runs again")
    made = Bench(tmp_path, request.getfixturevalue("whole"), table, name)
    yield made
    for sweep in made.sweeps:
        if sweep.process.poll() is None:
            sweep.process.kill()
