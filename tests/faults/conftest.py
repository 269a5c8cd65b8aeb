"""What the tables of faults share: undisturbed sweeps, and rows that have been seen are not run again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fault_table import seen
from machines import Cluster, Hosts, missing, sh
from sweeps import Bench, words


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], Path]:
    """The store of a sweep that nothing disturbed, by the changes of its words. Where a search learns from what came
    first it is one of rules: of its keys trial 0's is the same."""
    made: dict[tuple[tuple[str, str], ...], Path] = {}

    def whole(changes: Mapping[str, str]) -> Path:
        given = {} if "search" in changes else dict(changes)
        place = tuple(sorted(given.items()))
        if place not in made:
            store = tmp_path_factory.mktemp("whole") / "store"
            how = [] if "workers" in given else ["ray=off"]
            command = [sys.executable, "-m", "harness.sweep", *words(given), f"store={store}", *how, "mlflow=off"]
            done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
            assert done.returncode == 0, done.stderr
            made[place] = store
        return made[place]

    return whole


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path):
    """A row of the table that the test's file names (`TABLE`)."""
    table, name = request.module.TABLE, request.node.name.removeprefix("test_")
    if name in seen(table):
        pytest.skip(f"seen already; without its entry in seen/{table}.json it runs again")
    made = Bench(tmp_path, request.getfixturevalue("whole"), table, name)
    yield made
    for sweep in made.sweeps:
        if sweep.process.poll() is None:
            sweep.process.kill()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if why := missing():
        pytest.skip(f"hosts cannot be made here: {why}")
    with Hosts(3) as made:
        yield made


@pytest.fixture
def cluster(hosts: Hosts, bench: Bench) -> Iterator[Cluster]:
    made = Cluster(hosts, bench.folder)
    yield made
    for host in hosts.all:
        host.kill()
        sh("umount", "-l", host.root / str(bench.folder).removeprefix("/"), check=False)
