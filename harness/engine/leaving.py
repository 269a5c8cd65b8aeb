"""Notice to leave: SIGTERM to a run's process, a file of its driver, or one of its machine, looked at after each step.

A run that is told writes a checkpoint at its next step and raises `Left`: no step of it is lost. Of a run of several
workers all leave at the step at which the first of them is told.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_EVERY_S = 0.5
MACHINE = Path("~/.ray/leaving")
"""Made by whoever knows that this machine is about to go: the cloud's notice to spot machines, an operator."""


class Left(Exception):
    """A run left with a checkpoint, because it was told to; it goes on from there."""


class Notice:
    """Whether this process, or one of the files that it watches, has been told to leave."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._files: tuple[Path, ...] = ()
        self._looked = 0.0
        self._seen = False

    def watch(self, *files: Path) -> None:
        """From now on looks at these files; those of before are forgotten, and what they told."""
        self._files = tuple(f.expanduser() for f in files)
        self._looked, self._seen = 0.0, False

    def tell(self) -> None:
        """Tells this process to leave."""
        self._told.set()

    def forget(self) -> None:
        """As if this process had never been told."""
        self._told.clear()

    def told(self) -> bool:
        """Whether to leave; looks at the files twice a second at most."""
        now = time.monotonic()
        if self._files and now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._seen = any(f.exists() for f in self._files)
        return self._seen or self._told.is_set()


NOTICE = Notice()
"""That of this process: a signal has no other place to go."""


@contextmanager
def first_sigterm(tell: Callable[[], None], forget: Callable[[], None]) -> Iterator[None]:
    """While this lasts the first SIGTERM to this process calls `tell`; a second one ends it as Ctrl-C does. In the end
    `forget` is called. Only the main thread hears signals: elsewhere nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        tell()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        forget()


@contextmanager
def told_by_sigterm() -> Iterator[Notice]:
    """While this lasts the first SIGTERM to this process is a notice."""
    with first_sigterm(NOTICE.tell, NOTICE.forget):
        yield NOTICE
