"""Small JSON files that say where each running run is, for progress displays and `sweep status`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.datasets.io.opening import plain_bytes
from harness.files import write_json
from harness.store.outlines import LARGEST_PID

FILE = "progress.json"


class Heartbeat:
    """Writes `progress.json` of one run, atomically and at most every `every_s` seconds."""

    def __init__(self, path: str | Path, every_s: float = 1.0, *, clock: Callable[[], float] = time.time):
        """`path`: the file, or the run's work folder (then `progress.json` in it)."""
        path = Path(path)
        self.path = path if path.suffix == ".json" else path / FILE
        self._every_s = every_s
        self._clock = clock
        self._last: float | None = None
        self._stepped: tuple[int, float] | None = None
        self.before = _read(self.path)
        """The last heartbeat of an attempt that ended without a result; empty where there was none."""
        self.earlier = max(0.0, float(self.before.get("updated", 0.0)) - float(self.before.get("started", 0.0)))
        """Seconds of all attempts before this one, each until its last heartbeat."""
        # Set back, so that `updated - started` is what the run has cost, however many attempts it took.
        started = clock() - self.earlier
        self._fields: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}

    def write(self, *, force: bool = False, **fields: Any) -> bool:
        """Remembers `fields` (JSON values) and writes all of them when due; answers whether it wrote.

        Known fields: key, study, trial, role, seed, method, stage, step, total, losses.
        `force` writes at once (change of stage, end). Times are seconds since the epoch. Kept here: `stage_started`;
        `pace`, the seconds that a step of this stage takes, and `every`, those from one call to the next, which may be
        several steps later (means of about the last ten; 0 before the second).
        """
        now = self._clock()
        if "stage" in fields and fields["stage"] != self._fields.get("stage"):
            self._fields.update(stage_started=now, pace=0.0, every=0.0)
            self._stepped = None
        self._keep_pace(now, fields.get("step"))
        self._fields.update(fields)
        if not force and self._last is not None and now - self._last < self._every_s:
            return False
        self._last = now
        self._fields["updated"] = now
        # A full disk or a server that is away must not end days of training for a file that only says how far it is.
        with contextlib.suppress(OSError):
            write_json(self.path, self._fields, sync=False)
            return True
        return False

    def _keep_pace(self, now: float, step: int | None) -> None:
        if step is None:
            return
        if self._stepped is not None and step > self._stepped[0]:
            gap = now - self._stepped[1]
            for name, each in (("pace", gap / (step - self._stepped[0])), ("every", gap)):
                before = self._fields.get(name) or each
                self._fields[name] = 0.9 * before + 0.1 * each
        self._stepped = (step, now)

    def clear(self) -> None:
        """Removes the file: the run is over."""
        self.path.unlink(missing_ok=True)


NUMBERS = ("updated", "started", "stage_started", "pace", "every", "step", "total")


def _read(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it is not there, half gone, or no heartbeat's."""
    try:
        found = dict(json.loads(plain_bytes(path)))
        numbers = [found.get(name, 0) for name in NUMBERS] + list(found.get("losses", {}).values())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    whole = all(isinstance(value, int | float) and abs(value) < sys.float_info.max for value in numbers)
    pid = found.get("pid", 1)
    return found if whole and isinstance(pid, int) and 0 < pid <= LARGEST_PID else {}


def read_heartbeat(store_root: str | Path, key: str) -> dict[str, Any]:
    """The latest heartbeat of a run; empty where there is none."""
    return _read(Path(store_root) / "work" / key / FILE)


def read_heartbeats(store_root: str | Path) -> list[dict[str, Any]]:
    """All heartbeats under `<store_root>/work/<key>/`, newest first; half-gone files are left out."""
    # A run may end (and remove its file) while we look.
    found = [_read(path) for path in sorted(Path(store_root).glob(f"work/*/{FILE}"))]
    return sorted((b for b in found if "key" in b), key=lambda b: -float(b.get("updated", 0.0)))
