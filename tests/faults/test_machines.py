"""Faults of machines and of what lies between them: three made of one (`tests/cluster/hosts.py`), as root.

The sweep is started on Ray's head, but where the head itself is lost.
"""

from __future__ import annotations

import re
import socket
import time

import pytest
from machines import Cluster, Host
from sweeps import AGAIN, STEPS, Bench, Sweep, told, until

pytestmark = pytest.mark.faults
TABLE = "machines"
GIVEN_UP_S = 75.0
"""By then Ray has given up a machine that is silent: after 65 s."""
AWAY = "trial 0: its machine went away, the run starts again from its newest checkpoint"


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
    # By then Ray would have given it up, had its connections not come back.
    time.sleep(max(0.0, at + GIVEN_UP_S - time.time()))
    bench.go.touch()
    sweep.end(0)
    said = [line for line in sweep.lines if re.search(AGAIN, line)]
    saw, after = (told(sweep, AGAIN), said[0].at - at) if said else ("nothing: the run goes on", None)
    bench.record("the network of a machine is cut for 30 s", saw, after, most=STEPS)


def test_network_slow(bench: Bench, cluster: Cluster) -> None:
    sweep = started(bench, cluster, cluster.head)
    host = cluster.of(bench)
    with host.slow(200):
        asked = time.monotonic()
        socket.create_connection((host.address, 22), timeout=60).close()
        assert time.monotonic() - asked >= 0.2, "its packets come as before"
        bench.go.touch()
        sweep.end(0)
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
