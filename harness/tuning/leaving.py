"""SIGTERM to a driver: its runs leave with a checkpoint each, then it ends as on Ctrl-C."""

from __future__ import annotations

import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.engine.leaving import first_sigterm
from harness.files import discard

GRACE_S = 60.0
"""Runs that have not left by then (they are scoring, or their step takes longer) go on from an older checkpoint."""


@dataclass
class Leaving:
    """Whether a driver has been told to end, and the file by which its runs hear of it."""

    file: Path
    told: bool = False


@contextmanager
def leaving_by_sigterm(store_root: Path, grace_s: float = GRACE_S) -> Iterator[Leaving]:
    """While this lasts the first SIGTERM tells all runs to leave; a second one, or `grace_s` later, interrupts."""
    leaving = Leaving(store_root.absolute() / "work" / f".leave-{secrets.token_hex(8)}")
    timer = threading.Timer(grace_s, signal.raise_signal, [signal.SIGINT])
    timer.daemon = True

    def tell() -> None:
        leaving.told = True
        leaving.file.parent.mkdir(parents=True, exist_ok=True)
        leaving.file.touch()
        timer.start()
        print(f"told to end: runs write a checkpoint and leave, {grace_s:.0f} s at most", file=sys.stderr, flush=True)

    def forget() -> None:
        timer.cancel()
        discard(leaving.file)

    with first_sigterm(tell, forget):
        yield leaving
