"""Three machines made of one (`tests/cluster/hosts.py`), with Ray on them; its head has no core for runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import ray_faults
from sweeps import HERE, Bench

sys.path.insert(0, str(HERE.parent / "cluster"))
from hosts import Host, Hosts, missing, sh

__all__ = ["Cluster", "Host", "Hosts", "missing", "sh"]
RAY = f"{sys.prefix}/bin/ray"
TOKEN = "f" * 64
TRIES = 10
START_S = 600


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
            self.start_on(host)

    def start_on(self, host: Host) -> None:
        """Starts Ray anew on one machine. A machine whose cores are all taken may take longer than Ray allows itself:
        then again."""
        here = "--head --port=6379 --num-cpus=0 --include-dashboard=false"
        there = f"--address={self.head.address}:6379 --num-cpus=1"
        line = f"{RAY} stop -f >/dev/null; {RAY} start {here if host is self.head else there} --disable-usage-stats"
        for _ in range(TRIES):
            done = host.run(f'env {self.env()} bash -c "{line}"', timeout=START_S)
            if done.returncode == 0:
                return
        raise AssertionError(done.stdout + done.stderr)

    def command(self, on: Host) -> list[str]:
        """How a sweep is started on one of the machines."""
        return on.ssh(f"cd {Path.cwd()}; exec env {self.env()} {sys.executable} {HERE / 'faulty_sweep.py'} ")

    def of(self, bench: Bench) -> Host:
        """The machine on which the run with the fault trains."""
        name = bench.hit()["host"]
        return next(h for h in self.hosts.all if f"host{h.index}" == name)
