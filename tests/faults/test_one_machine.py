"""Faults on one machine, one worker a run: each test is a row of `docs/faults.md` (`pytest -m faults tests/faults`)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sweeps import AT, EVERY, STEPS, Bench, Sweep, until

from harness.store import load

pytestmark = pytest.mark.faults
AGAIN = r"trial 0: .*, the run starts again from its newest checkpoint"
HANG_S = "20"
TABLES = ("runs", "params", "evals", "counts", "curves", "steps", "artifacts", "trials")


def told(sweep: Sweep, pattern: str) -> str:
    """What a user reads: the part of the first matching line that follows the study's name."""
    return sweep.said(pattern).partition("  ")[2].strip() or str(sweep.said(pattern))


def starts_again(bench: Bench, what: str, env: Mapping[str, str] = {}) -> tuple[str, float]:
    """A run with this fault is started again; what the user reads of it, and seconds after the fault."""
    bench.fault(what)
    sweep = bench.start(env=env)
    sweep.end(0)
    return told(sweep, AGAIN), sweep.said(AGAIN).at - bench.hit()["at"]


def test_worker_killed(bench: Bench) -> None:
    saw, after = starts_again(bench, "die")
    bench.record("a run's process is killed (SIGKILL)", saw, after)


def test_segmentation_fault(bench: Bench) -> None:
    saw, after = starts_again(bench, "segfault")
    bench.record("segmentation fault in compiled code", saw, after)


def test_raise(bench: Bench) -> None:
    bench.fault("raise")
    sweep = bench.start()
    sweep.end(1)
    failed = r"trial 0 seed 0: failed \(bug\) RuntimeError: broken on purpose"
    after = sweep.said(failed).at - bench.hit()["at"]
    runs = load(bench.store).runs
    assert runs.filter(runs["key"] == bench.keys[0])["error_class"][0] == "bug"
    bench.goes_on("retry=failed")
    saw = f"{told(sweep, failed)}; done by the same command with `retry=failed`"
    bench.record("the method raises", saw, after, most=STEPS)


def test_memory_error(bench: Bench) -> None:
    bench.fault("memory")
    sweep = bench.start()
    sweep.end(0)
    bench.hit()
    bench.record(
        "`MemoryError`, or CUDA out of memory",
        "nothing: the run goes on with smaller groups, whose sums round otherwise",
        None,
        most=STEPS,
        equal=False,
    )


def test_not_a_number(bench: Bench) -> None:
    sweep = bench.start("cam.lr=1e30")
    ended = sweep.end(1)
    runs = load(bench.store).runs
    row = runs.filter(runs["status"] == "failed").row(0, named=True)
    assert "NonFiniteLoss" in row["error_message"]
    step = int(row["error_message"].split("step ")[1].split()[0].rstrip(":,.;"))
    assert 0 < step <= STEPS
    failed = r"trial 0 seed 0: failed \(bug\) NonFiniteLoss"
    assert ended >= sweep.said(failed).at
    # The same words without the pinned value are runs of their own.
    bench.goes_on()
    bench.record(
        "the loss is not finite", told(sweep, failed)[:160], None, injected=f"training, step {step} of {STEPS}",
    )  # fmt: skip


def test_hang(bench: Bench) -> None:
    saw, after = starts_again(bench, "hang", {"FAULTS_HANG_S": HANG_S})
    assert float(HANG_S) < after
    limit = f"a limit of {HANG_S} s here; otherwise 20 usual silences, at least 300 s"
    bench.record("a run hangs", f"{saw} ({limit})", after)


def test_stopped_and_continued(bench: Bench) -> None:
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start()
    pid = bench.wait_for_fault(sweep)["pid"]
    os.kill(pid, signal.SIGSTOP)
    bench.go.touch()
    time.sleep(10.0)
    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it went on while it was stopped"
    os.kill(pid, signal.SIGCONT)
    sweep.end(0)
    bench.record("a run's process is stopped for 10 s and continued", "nothing: it goes on", None, most=0)


def test_driver_killed(bench: Bench) -> None:
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start()
    hit = bench.wait_for_fault(sweep)
    sweep.signal(signal.SIGKILL)
    sweep.end(-signal.SIGKILL)
    until("its workers end too", lambda: not Path(f"/proc/{hit['pid']}").exists(), limit_s=60)
    after = time.time() - hit["at"]
    bench.goes_on()
    bench.record(
        "the sweep is killed (SIGKILL)",
        "`Killed`; its runs end with it; the same command goes on",
        after,
        most=2 * EVERY,
    )


def test_driver_terminated(bench: Bench) -> None:
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start()
    bench.wait_for_fault(sweep)
    at = sweep.signal(signal.SIGTERM)
    sweep_said = "told to end: runs write a checkpoint and leave"
    until("it is heard", lambda: any(sweep_said in line for line in sweep.lines), sweep)
    bench.go.touch()
    after = sweep.end(130) - at
    assert sweep.said(f"told to leave, it wrote a checkpoint at step {AT} of {STEPS}: no step is lost")
    bench.goes_on()
    saw = f"{sweep.said(sweep_said)}; {told(sweep, 'told to leave')}; the same command goes on"
    bench.record("the sweep is told to end (SIGTERM)", saw, after, most=0)


@pytest.mark.parametrize("times", [1, 2])
def test_control_c(bench: Bench, times: int) -> None:
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start()
    hit = bench.wait_for_fault(sweep)
    at = sweep.signal(signal.SIGINT)
    if times == 2:
        time.sleep(0.5)
        sweep.signal(signal.SIGINT)
    after = sweep.end(130) - at
    until("its workers end too", lambda: not Path(f"/proc/{hit['pid']}").exists(), limit_s=60)
    bench.goes_on()
    saw = f"{sweep.lines[-1]}; the same command goes on"
    bench.record(f"Ctrl-C, {'once' if times == 1 else 'twice'}", saw, after, most=2 * EVERY)


def test_two_sweeps_on_one_store(bench: Bench) -> None:
    bench.fault("wait", go=str(bench.go))
    one = bench.start()
    bench.wait_for_fault(one)
    other = bench.start()
    time.sleep(15.0)
    bench.go.touch()
    one.end(0)
    other.end(0)
    bench.record(
        "a second sweep on the same store",
        "nothing: both end with every row; a run that both have made has two of `runs`, the newest counts",
        None,
        most=2 * STEPS,
        twice=True,
    )


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
        bench.record("the store's disk is full", f"{saw}; with room again the same command goes on", after, most=STEPS)


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
        again = "writable again, the same command goes on"
        bench.record("the store becomes read-only", f"{saw}; {again}", after, most=STEPS)


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


def test_checkpoint_damaged(bench: Bench) -> None:
    bench.fault("spoil", step=2 * EVERY + 2, store=str(bench.store))
    sweep = bench.start()
    sweep.end(0)
    saw = told(sweep, AGAIN)
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
    saw = sweep.said(r"StoreWarning: |is made again").rpartition("StoreWarning: ")[2]
    bench.record(
        f"a file of the table `{table}` is damaged",
        saw[:160],
        None,
        most=2 * STEPS,
        injected="between two sweeps",
        twice=True,
    )


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_tracking_server_dead(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sweep = bench.start(f"mlflow=http://127.0.0.1:{port}")
    sweep.end(0)
    saw = sweep.said("MLflow at .* did not take the results").replace(str(port), "PORT")
    bench.record("the tracking server is dead", saw[:160], None, injected="from the start", most=0)


def test_tracking_server_hangs(bench: Bench, silent_server: str) -> None:
    sweep = bench.start(f"mlflow={silent_server}")
    sweep.end(0)
    saw = sweep.said("MLflow at .* did not take the results").replace(silent_server, "SERVER")
    bench.record("the tracking server hangs", saw[:160], None, injected="from the start", most=0)


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
/* The time of day of this process jumps by JUMP_S seconds once the file JUMP_AT is there. */
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, now);
    const char *file = getenv("JUMP_AT");
    if (which == CLOCK_REALTIME && file && access(file, F_OK) == 0) now->tv_sec += atol(getenv("JUMP_S"));
    return code;
}
"""


@pytest.mark.parametrize("jump_s", [7200, -7200])
def test_clock_jumps(bench: Bench, jump_s: int) -> None:
    (bench.folder / "clock.c").write_text(CLOCK)
    library = bench.folder / "clock.so"
    compiler = shutil.which("cc") or pytest.skip("no C compiler (cc)")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, bench.folder / "clock.c", "-ldl"], check=True)
    bench.fault("wait", go=str(bench.go))
    env = {"LD_PRELOAD": str(library), "JUMP_AT": str(bench.go), "JUMP_S": str(jump_s)}
    # The sweep with its runs in one process: Ray's own processes keep the clock.
    sweep = bench.start("ray=off", env=env)
    bench.wait_for_fault(sweep)
    bench.go.touch()
    sweep.end(0)
    how = "forward" if jump_s > 0 else "back"
    bench.record(f"the clock jumps {how} by two hours (`ray=off`)", "nothing: the run goes on", None, most=0)
