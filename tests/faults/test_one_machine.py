"""Faults on one machine, one worker a run: each test is a row of `docs/faults.md` (`pytest -m faults tests/faults`)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from sweeps import AGAIN, AT, EVERY, STEPS, Bench, told, until

from harness.engine.leaving import LOOK_EVERY_S
from harness.store import load

pytestmark = pytest.mark.faults
TABLE = "one_machine"
HANG_S = "20"
ANEW = "trial 0: it took more memory than there is, the run starts anew with smaller groups"


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
        told(sweep, "trial 0 seed 0: done, .*for want of memory"),
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


@pytest.mark.parametrize("seconds", [10, 3600])
def test_loader_sleeps(bench: Bench, seconds: int) -> None:
    bench.fault("sleepy loader", seconds=seconds)
    sweep = bench.start("loaders=1", env={"FAULTS_HANG_S": HANG_S})
    sweep.end(0)
    at = bench.hit()["at"]
    assert (bench.trace / "asleep").exists(), "the loader did not sleep"
    if seconds < float(HANG_S):
        bench.record(f"a loader process sleeps for {seconds} s", "nothing: the run goes on", None, most=0)
    else:
        bench.record("a loader process sleeps and does not wake", told(sweep, AGAIN), sweep.said(AGAIN).at - at)


def memory_mib() -> tuple[int, int]:
    """All of the machine's memory, and what of it is free."""
    read = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return (int(read["MemTotal"].split()[0]) >> 10, int(read["MemAvailable"].split()[0]) >> 10)


def test_memory_monitor(bench: Bench) -> None:
    total, free = memory_mib()
    if free < 8_000:
        pytest.skip(f"{free} MiB are free, 8,000 are needed")
    bench.fault("eat", mb=7000)
    sweep = bench.start(env={"RAY_memory_usage_threshold": f"{(total - free + 5120) / total:.4f}"})
    sweep.end(0)
    after = sweep.said(ANEW).at - bench.hit()["at"]
    bench.record(
        "a run takes more memory than Ray's monitor allows",
        told(sweep, ANEW),
        after,
        most=STEPS,
        equal=False,
    )


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
    # Its file is looked for now and then: at the next step it is due.
    time.sleep(LOOK_EVERY_S)
    bench.go.touch()
    after = sweep.end(130) - at
    assert sweep.said(f"told to leave, it wrote a checkpoint at step {AT + 1} of {STEPS}: no step is lost")
    bench.goes_on()
    saw = f"{sweep.said(sweep_said)}; {told(sweep, 'trial 0: told to leave')}; the same command goes on"
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
