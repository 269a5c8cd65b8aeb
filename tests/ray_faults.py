"""Real runs with a fault each, in whatever process a driver starts them: what happens to a run is said by its key."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

from PIL import Image

from harness.api.method import Batch
from harness.datasets.loading import _Steps
from harness.engine import run
from harness.engine.heartbeat import Heartbeat
from harness.engine.session import Session
from harness.files import write_json
from harness.plan.payload import Payload
from harness.plan.studies import Outcome

FILE = "RUN_FAULTS"
"""Environment variable: a JSON file of faults by key: `what`, at which `stage` and `step`, how often (`times`)."""
TRACE = "RUN_TRACE"
"""Environment variable: a folder for what each run did; without it only what happened is left, in the store."""
WAIT_S = 600.0
EATEN_MB = 128
"""At a time."""


def execute(payload: Payload, session: Session) -> Outcome:
    """`harness.engine.run.execute` of a run, with the fault that `FILE` has for its key."""
    fault, folder = json.loads(Path(os.environ[FILE]).read_text()).get(payload.key), os.environ.get(TRACE)
    if fault is None and folder is None:
        return run.execute(payload, session)
    write, happened = Heartbeat.write, Path(folder or payload.machine.store) / f"happened-{payload.key}"

    def faulty(self: Heartbeat, **fields: Any) -> bool:
        if folder is not None and fields.get("step"):
            with (Path(folder) / f"steps-{payload.key}").open("a") as file:
                file.write(f"{fields['stage']}\t{fields['step']}\t{os.getpid()}\n")
        if fault is None or (fields.get("stage"), fields.get("step")) != (fault["stage"], fault["step"]):
            return write(self, **fields)
        # Heard there, whenever it was heard last.
        wrote = write(self, **{**fields, "force": True})
        before = happened.read_text() if happened.exists() else ""
        if len(before) < fault["times"]:
            happened.write_text(before + "x")
            if folder is not None:
                hit = {"key": payload.key, "pid": os.getpid(), "host": socket.gethostname(), "at": time.time()}
                write_json(Path(folder) / "hit.json", hit)
            _happen(fault, Path(payload.machine.store) / str(fields.get("folder", "")))
        return wrote

    batches = _Steps.batches
    Heartbeat.write = faulty  # type: ignore[method-assign]
    if fault is not None and fault["what"] == "sleepy loader":
        assert folder is not None, f"a loader sleeps once {TRACE} says that it is time"
        _Steps.batches = partialmethod(_sleepily, batches, Path(folder), fault["seconds"])  # type: ignore[assignment]
    try:
        outcome = run.execute(payload, session)
        if folder is not None:
            (Path(folder) / f"done-{payload.key}").write_text(socket.gethostname())
        return outcome
    finally:
        Heartbeat.write, _Steps.batches = write, batches  # type: ignore[method-assign]


def _sleepily(
    self: _Steps, batches: Callable[[_Steps, int], list[Batch]], folder: Path, seconds: float, step: int
) -> list[Batch]:
    """A loader's work, in a process of its own: the first time after the fault has come it sleeps, once."""
    if (folder / "hit.json").exists() and not (folder / "asleep").exists():
        (folder / "asleep").touch()
        until, parent = time.monotonic() + seconds, os.getppid()
        while time.monotonic() < until and os.getppid() == parent:
            time.sleep(0.1)
    return batches(self, step)


def execute_on_nfs(payload: Payload, session: Session) -> Outcome:
    """`harness.engine.run.execute` in a process that has to have NFS's `flock` (`nfs_flock`)."""
    only = os.open(Path(tempfile.gettempdir()) / f"probe-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(only, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    else:
        raise RuntimeError("flock is not emulated in this process")
    finally:
        os.close(only)
        os.unlink(Path(tempfile.gettempdir()) / f"probe-{os.getpid()}")
    return run.execute(payload, session)


def _happen(fault: dict[str, Any], stage: Path) -> None:
    """`stage`: the folder of the run's stage, and of no other run beside it."""
    if fault["what"] == "spoil":
        newest = max(stage.glob("step-*/model.safetensors"), key=lambda p: p.parent.name)
        content = bytearray(newest.read_bytes())
        content[-3] ^= 1
        newest.write_bytes(content)
    if fault["what"] in ("die", "spoil"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault["what"] == "hang":
        time.sleep(3600)
    if fault["what"] == "segfault":
        ctypes.string_at(0)
    if fault["what"] == "raise":
        raise RuntimeError("broken on purpose")
    if fault["what"] == "memory":
        raise MemoryError("too much, on purpose")
    if fault["what"] == "eat":
        # More than the machine may hold: what ends this is Ray's memory monitor.
        # By and by, so that it is over soon after the monitor's limit.
        held = []
        while len(held) * EATEN_MB < fault["mb"]:
            held.append(b"x" * (EATEN_MB << 20))
            time.sleep(0.2)
        time.sleep(WAIT_S)
    if fault["what"] == "wait":
        until = time.monotonic() + WAIT_S
        while not Path(fault["go"]).exists():
            if time.monotonic() > until:
                raise TimeoutError("nobody let the run go on")
            time.sleep(0.02)
    for path in fault.get("files", ()):
        turned(Path(path))


def turned(path: Path) -> None:
    """Other pixels of the same kind in a file: upside down."""
    with Image.open(path) as was:
        upside = was.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    upside.save(path)
