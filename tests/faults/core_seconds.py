"""Core-seconds of this process's children, of theirs, and of those that outlive their parents: what a row costs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

EVERY_S = 0.5
PID, PARENT, USER, SYSTEM, STARTED = 0, 1, 11, 12, 19
"""Places in `_stat`'s answer."""


class CoreSeconds:
    """Counts from its making on, looking at all processes twice a second; what lives for less is not seen."""

    def __init__(self) -> None:
        self._tick = os.sysconf("SC_CLK_TCK")
        self._ticks: dict[tuple[int, int], int] = {}
        self._stop = threading.Event()
        self._before = set(self._found())
        threading.Thread(target=self._count, name="core-seconds", daemon=True).start()

    def _count(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        """Looks at all processes now."""
        found = self._found()
        family = {pid for pid, started in self._ticks if (pid, started) in found} | {os.getpid()}
        # A child may have a lower number than its parent: until no one is added.
        while added := {pid for (pid, _), (parent, _) in found.items() if parent in family} - family:
            family |= added
        family.discard(os.getpid())
        self._ticks |= {who: ticks for who, (_, ticks) in found.items() if who[0] in family and who not in self._before}

    def stop(self) -> float:
        """Ends the counting; core-seconds, of user and system together."""
        self._stop.set()
        self.look()
        return sum(self._ticks.values()) / self._tick

    @staticmethod
    def _found() -> dict[tuple[int, int], tuple[int, int]]:
        """By process (number, start): its parent, and its ticks."""
        return {
            (stat[PID], stat[STARTED]): (stat[PARENT], stat[USER] + stat[SYSTEM])
            for file in Path("/proc").glob("[0-9]*/stat")
            for stat in _stat(file)
        }


def _stat(file: Path) -> Iterator[list[int]]:
    """The numbers of a process, without its name and state; nothing where it has just gone."""
    try:
        number, _, rest = file.read_text().partition(" (")
        yield [int(number), *map(int, rest.rpartition(") ")[2].split()[1:])]
    except (FileNotFoundError, ProcessLookupError):
        return
