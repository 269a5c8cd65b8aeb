"""Faults of machines and of what lies between them: three made of one (`tests/cluster/hosts.py`), as root.

Ray's head has no core for runs; the sweep is started on it, but where the head itself is lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_faults
from sweeps import HERE, STEPS, Bench, Sweep, until

sys.path.insert(0, str(HERE.parent / "cluster"))
from hosts import Host, Hosts, missing, sh

pytestmark = pytest.mark.faults
TABLE = "machines"
RAY = f"{sys.prefix}/bin/ray"
AWAY = "trial 0: its machine went away, the run starts again from its newest checkpoint"
TOKEN = "f" * 64


class Cluster:
    """Three machines, with Ray on them."""

    def __init__(self, hosts: Hosts, work: Path):
        self.hosts, self.work = hosts, work
        self.head = hosts.all[0]
        for host in hosts.all:
            host.kill()
            # The same path here and there; a machine that is up does not see what is mounted.
            inside = host.root / str(work).removeprefix("/")
            inside.mkdir(parents=True)
            sh("mount", "--bind", work, inside)
            host.boot()
        self.start_ray(self.head)

    def environment(self) -> dict[str, str]:
        """Of every process of Ray, and so of every run."""
        path = os.pathsep.join([str(HERE.parent), *(p for p in sys.path if p)])
        return {
            "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ray_faults.FILE: str(self.work / "faults.json"), ray_faults.TRACE: str(self.work / "trace"),
        }  # fmt: skip

    def env(self) -> str:
        return " ".join(f"{name}='{value}'" for name, value in self.environment().items())

    def start_ray(self, head: Host) -> None:
        """Starts Ray anew on every machine that is up; `head` has no core for runs."""
        self.head = head
        up = [h for h in self.hosts.all if h.run("true").returncode == 0]
        for host in sorted(up, key=lambda h: h is not head):
            here = "--head --port=6379 --num-cpus=0 --include-dashboard=false"
            there = f"--address={head.address}:6379 --num-cpus=1"
            line = f"{RAY} stop -f >/dev/null; {RAY} start {here if host is head else there} --disable-usage-stats"
            done = host.run(f'env {self.env()} bash -c "{line}"', timeout=200)
            assert done.returncode == 0, done.stdout + done.stderr

    def command(self, on: Host) -> list[str]:
        """How a sweep is started on one of the machines."""
        return on.ssh(f"cd {Path.cwd()}; exec env {self.env()} {sys.executable} {HERE / 'faulty_sweep.py'} ")

    def of(self, bench: Bench) -> Host:
        """The machine on which the run with the fault trains."""
        name = bench.hit()["host"]
        return next(h for h in self.hosts.all if f"host{h.index}" == name)


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


def started(bench: Bench, cluster: Cluster, on: Host) -> Sweep:
    """A sweep on one of the machines, whose run with a fault has come to it."""
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start(f"address={cluster.head.address}:6379", command=cluster.command(on))
    bench.wait_for_fault(sweep)
    return sweep


def test_node_powered_off(bench: Bench, cluster: Cluster) -> None:
    sweep = started(bench, cluster, cluster.head)
    cluster.of(bench).kill()
    at = time.time()
    bench.go.touch()
    sweep.end(0)
    bench.record("a machine is powered off", AWAY, sweep.said(AWAY).at - at)


def test_network_cut_for_good(bench: Bench, cluster: Cluster) -> None:
    sweep = started(bench, cluster, cluster.head)
    cluster.of(bench).cut()
    at = time.time()
    until("it is said", lambda: any(AWAY in line for line in sweep.lines), sweep)
    bench.go.touch()
    sweep.end(0)
    bench.record("the network of a machine is cut for good", AWAY, sweep.said(AWAY).at - at, most=STEPS)


def test_network_cut_for_30_s(bench: Bench, cluster: Cluster) -> None:
    sweep = started(bench, cluster, cluster.head)
    host = cluster.of(bench)
    host.cut()
    at = time.time()
    time.sleep(30.0)
    host.join()
    bench.go.touch()
    sweep.end(0)
    said = [line for line in sweep.lines if AWAY in line]
    saw, after = (AWAY, said[0].at - at) if said else ("nothing: the run goes on", None)
    bench.record("the network of a machine is cut for 30 s", saw, after, most=STEPS)


def test_network_slow(bench: Bench, cluster: Cluster) -> None:
    sweep = started(bench, cluster, cluster.head)
    host = cluster.of(bench)
    host.slow(200)
    try:
        bench.go.touch()
        sweep.end(0)
    finally:
        host.slow(0)
    bench.record("packets to a machine take 200 ms longer", "nothing: the run goes on", None, most=0)


def test_head_killed(bench: Bench, cluster: Cluster) -> None:
    driver = cluster.hosts.all[1]
    sweep = started(bench, cluster, driver)
    lost = cluster.head
    lost.kill()
    at = time.time()
    ended = sweep.end(None)
    silent, end = sweep.said(r"the Ray head at \S+ does not answer"), sweep.said(r"error: the Ray head at ")
    assert sweep.process.returncode in (1, 130), sweep.text()
    assert silent.at - at < 15.0
    assert 55.0 < end.at - at < 75.0
    assert ended - end.at < 30.0
    assert f"store={bench.store}" in end
    bench.faults = {}
    bench.go.touch()
    cluster.start_ray(driver)
    again = bench.start(f"address={driver.address}:6379", command=cluster.command(driver))
    again.end(0)
    saw = f"after {silent.at - at:.0f} s `{silent}`; after {end.at - at:.0f} s `{end.partition(': python')[0]}: ...`"
    bench.record(
        "the head is powered off; then the same command on a new cluster",
        saw.replace(lost.address, "HEAD"), silent.at - at,
    )  # fmt: skip
