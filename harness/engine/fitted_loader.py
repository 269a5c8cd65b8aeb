"""A loader with as many processes as its method's views need beside its steps; how many moves no number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from statistics import median

from harness.api.method import Batch
from harness.datasets.loading import Loader

PROBED = 6
"""Steps whose batches are made in this process and timed; the first is left out: it reads what is read once."""


class FittedLoader:
    """The batches of `make(start, stop, loaders)`, in processes once it is known how many.

    The first steps are made here: what a batch takes to make, next to what the caller does with it, says how many
    processes keep up, at most `most`. `settle` waits for the device: a step's time is not that of asking for it.
    """

    def __init__(
        self,
        make: Callable[[int, int, int], Loader],
        start: int,
        stop: int,
        *,
        most: int,
        settle: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._make, self._start, self._stop, self._most = make, start, stop, most
        self._settle, self._clock = settle, clock
        self.loaders = 0
        """Processes; 0 until it is known."""

    def __iter__(self) -> Iterator[list[Batch]]:
        probed = min(self._stop, self._start + PROBED)
        making: list[float] = []
        using: list[float] = []
        with self._make(self._start, probed, 0) as here:
            began = self._clock()
            for batches in here:
                made = self._clock()
                yield batches
                if self._settle is not None:
                    self._settle()
                used = self._clock()
                making.append(made - began)
                using.append(used - made)
                began = used
        if probed < self._stop:
            self.loaders = processes(median(making[1:]), median(using[1:]), self._most)
            with self._make(probed, self._stop, self.loaders) as ahead:
                yield from ahead


def processes(making: float, using: float, most: int) -> int:
    """Processes that make a batch in `making` seconds each, together one every `using` seconds, and half as many again
    for images that take longer; 1 to `most`."""
    return min(most, max(1, math.ceil(1.5 * making / using))) if using > 0 else most
