"""Faults of the store and its disk, on one machine with one worker a run: rows of `docs/faults.md`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sweeps import AGAIN, EVERY, STEPS, Bench, told, until

from harness.store import load

pytestmark = pytest.mark.faults
TABLE = "one_machine"
TABLES = ("runs", "params", "evals", "counts", "curves", "steps", "artifacts", "trials")


def test_two_sweeps_on_one_store(bench: Bench) -> None:
    bench.fault("wait", go=str(bench.go))
    one = bench.start()
    bench.wait_for_fault(one)
    other = bench.start()
    time.sleep(30.0)
    bench.go.touch()
    one.end(0)
    other.end(0)
    saw = "nothing: both end with every row, and each run is made once"
    bench.record("a second sweep on the same store", saw, None, most=0)


@contextmanager
def disk_of_its_own(folder: Path, size: str) -> Iterator[None]:
    """A file system of this size at a folder; as root, or the test is skipped."""
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_disk_full(bench: Bench) -> None:
    with disk_of_its_own(bench.store, "2g"):
        bench.fault("wait", go=str(bench.go))
        sweep = bench.start()
        at = bench.wait_for_fault(sweep)["at"]
        ballast = bench.store / "ballast"
        filled = subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=1M"], capture_output=True, text=True)
        assert "No space left" in filled.stderr
        bench.go.touch()
        after = sweep.end(1) - at
        saw = sweep.said("^error:")
        ballast.unlink()
        bench.goes_on()
        bench.record("the store's disk is full", saw, after, most=STEPS)


def test_store_read_only(bench: Bench) -> None:
    with disk_of_its_own(bench.store, "2g"):
        bench.fault("wait", go=str(bench.go))
        sweep = bench.start()
        at = bench.wait_for_fault(sweep)["at"]
        subprocess.run(["mount", "--bind", bench.store, bench.store], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", bench.store], check=True)
        try:
            bench.go.touch()
            after = sweep.end(1) - at
        finally:
            subprocess.run(["umount", "-l", bench.store], check=True)
        saw = sweep.said("^error:")
        bench.goes_on()
        bench.record("the store becomes read-only", saw, after, most=STEPS)


def test_store_removed(bench: Bench) -> None:
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start()
    bench.wait_for_fault(sweep)
    shutil.rmtree(bench.store)
    bench.go.touch()
    sweep.end(None)
    saw = "nothing: the run goes on and writes its rows" if sweep.process.returncode == 0 else sweep.said("^error:")
    bench.goes_on()
    bench.record("the store is removed", str(saw), None, most=2 * STEPS)


def test_store_away_and_back(bench: Bench) -> None:
    with disk_of_its_own(bench.store, "2g"):
        bench.fault("wait", go=str(bench.go))
        sweep = bench.start()
        bench.wait_for_fault(sweep)
        # What ends while the store is away is written beneath it: rows of the other run would be hidden.
        until("trial 1 is closed", lambda: 1 in load(bench.store).trials["trial"], sweep)
        elsewhere = bench.folder / "elsewhere"
        elsewhere.mkdir()
        subprocess.run(["mount", "--bind", bench.store, elsewhere], check=True)
        subprocess.run(["umount", "-l", bench.store], check=True)
        time.sleep(10.0)
        assert not (bench.store / "cache").exists(), "the store is not away"
        subprocess.run(["mount", "--bind", elsewhere, bench.store], check=True)
        subprocess.run(["umount", "-l", elsewhere], check=True)
        bench.go.touch()
        sweep.end(0)
        bench.record("the store is away for 10 s and comes back", "nothing: the run goes on", None, most=0)


def test_checkpoint_damaged(bench: Bench) -> None:
    bench.fault("spoil", step=2 * EVERY + 2)
    sweep = bench.start()
    sweep.end(0)
    damaged = told(sweep, f"trial 0: checkpoint .*step-{2 * EVERY:08d} is damaged .*: the one of step {EVERY} is taken")
    saw = f"{told(sweep, AGAIN)}; {damaged}"
    bench.record(
        "the newest checkpoint is damaged and the run's process killed", saw, None, most=2 * EVERY,
        injected=f"training, step {2 * EVERY + 2} of {STEPS}",
    )  # fmt: skip


def test_stage_cache_damaged(bench: Bench) -> None:
    shutil.copytree(bench.whole, bench.store)
    weights = [p for p in (bench.store / "cache").rglob("*.safetensors") if "step-" not in p.parent.name]
    assert weights
    for file in weights:
        file.write_bytes(file.read_bytes()[:100])
    for file in (bench.store / "curves").glob("*.parquet"):
        file.write_bytes(b"")
    sweep = bench.start("ray=off")
    sweep.end(0)
    saw = sweep.said("is made again")
    bench.record(
        "cached weights of a stage, and a table of its runs, are cut short", str(saw), None, most=3 * STEPS,
        injected="after a sweep", twice=True,
    )  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_table_damaged(bench: Bench, table: str) -> None:
    shutil.copytree(bench.whole, bench.store)
    files = sorted((bench.store / table).glob("*.parquet"))
    assert files, f"no file of {table}"
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        content[-9:] = b""
        file.write_bytes(content)
    sweep = bench.start("ray=off")
    sweep.end(0)
    saw = sweep.said("^warning: |is made again")
    bench.record(
        f"a file of the table `{table}` is damaged",
        str(saw),
        None,
        most=2 * STEPS,
        injected="between two sweeps",
        twice=True,
    )
