"""Many trials of a second on three machines, one of which is powered off now and then; figures: `docs/cluster.md`.

`SCALE_TRIALS` says how many, 500 where it is not set. Takes root and, of 500, minutes of two free cores.
"""

from __future__ import annotations

import os
import re
import time
from itertools import cycle
from pathlib import Path

import pytest
from machines import Cluster, Host
from sweeps import Bench

from harness.store import load

pytestmark = pytest.mark.faults
TABLE = "machines"
TRIALS = os.environ.get("SCALE_TRIALS", "500")
OFF_EVERY_S, BOOT_AFTER_S = 90.0, 15.0
LIMIT_S = 3 * 3600.0
TICKS = os.sysconf("SC_CLK_TCK")


class Driver:
    """What the sweep's own process has taken of its machine, as it was last seen."""

    def __init__(self, on: Host):
        self.on, self.cpu_s, self.peak_mib = on, 0.0, 0.0

    def look(self) -> None:
        """Looks, where it still runs."""
        said = self.on.run(
            "for p in $(pgrep -f '^[^ ]*python [^ ]*faulty_sweep.py'); do cat /proc/$p/status /proc/$p/stat; done"
        )
        if memory := re.search(r"VmHWM:\s+(\d+) kB", said.stdout):
            fields = said.stdout.splitlines()[-1].rpartition(")")[2].split()
            self.peak_mib, self.cpu_s = int(memory[1]) / 1024, (int(fields[11]) + int(fields[12])) / TICKS


def done_on(trace: Path) -> dict[str, int]:
    """Trials that each machine has finished."""
    hosts = [file.read_text() for file in trace.glob("done-*")]
    return {host: hosts.count(host) for host in set(hosts)}


def test_many_trials_on_machines_that_die(bench: Bench, cluster: Cluster) -> None:
    bench.of("", trials=TRIALS, iterations="16", checkpoint_every="8")
    began = time.monotonic()
    sweep = bench.start(f"address={cluster.head.address}:6379", command=cluster.command(cluster.head))
    driver, victims, offs = Driver(cluster.head), cycle(cluster.hosts.all[1:]), 0
    up_since = {host.index: done_on(bench.trace).get(f"host{host.index}", 0) for host in cluster.hosts.all}
    due = time.monotonic() + OFF_EVERY_S
    victim = next(victims)
    first: tuple[float, float, int] | None = None
    while sweep.process.poll() is None:
        assert time.monotonic() - began < LIMIT_S, sweep.text()[-4000:]
        driver.look()
        if first is None and (n := sum(done_on(bench.trace).values())):
            first = time.monotonic(), driver.cpu_s, n
        finished = done_on(bench.trace).get(f"host{victim.index}", 0)
        if time.monotonic() >= due and finished > up_since[victim.index]:
            victim.kill()
            offs += 1
            time.sleep(BOOT_AFTER_S)
            victim.boot()
            cluster.start_on(victim)
            up_since[victim.index] = finished
            victim, due = next(victims), time.monotonic() + OFF_EVERY_S
        time.sleep(2.0)
    sweep.end(0)
    ended = time.monotonic()
    found = load(bench.store)
    trials = found.trials.filter(found.trials["role"] == "trial")
    assert trials["trial"].n_unique() == int(TRIALS)
    done = found.runs.filter(found.runs["status"] == "done")["key"].to_list()
    assert len(done) == len(set(done)) == int(TRIALS)
    assert first is not None
    # Imports and Ray's start, the same for every sweep, are not in the cost of a result.
    since, cpu_s, before = first
    n = int(TRIALS) - before
    each = (driver.cpu_s - cpu_s) / n
    a_trial = (ended - since) / n
    print(f"{TRIALS} trials, {offs} power-offs, {ended - began:.0f} s; after the first {a_trial:.2f} s a trial")
    print(
        f"driver: {driver.peak_mib:.0f} MiB, {driver.cpu_s:.0f} s of a core, {each:.3f} s for a result, so at most "
        f"{1 / each:.1f} results a second"
    )
    assert offs > 0
