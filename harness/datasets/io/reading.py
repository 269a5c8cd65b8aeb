"""Work on many files: a few in threads, many in all cores, in order, with a bar for whoever waits."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
PROCESSES_FROM = 512
"""Fewer items are read in threads: starting processes would take longer."""
BAR_FROM = 2000
"""Fewer items are done before anyone asks for a bar."""
_CHUNK = 32


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_many(
    work: Callable[[str], T], items: Sequence[str], *, what: str = "reading", processes: int | None = None
) -> Iterator[T]:
    """`work` of each item, in order: in threads, or from `PROCESSES_FROM` items on in one process a core.

    `work` must not raise for bad data, and what it returns must pickle. `processes` overrides their number (0 for
    threads). From `BAR_FROM` items on a bar named `what` is shown on stderr.
    """
    if processes is None:
        processes = cores() if len(items) >= PROCESSES_FROM else 0
    results = _threads(work, items) if processes == 0 else _processes(work, items, processes)
    return with_bar(results, len(items), what) if len(items) >= BAR_FROM else results


def with_bar(results: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The results, with a bar on a terminal, or a line for each tenth where stderr is a file."""
    if not sys.stderr.isatty():
        tenth = max(1, -(-total // 10))
        for count, result in enumerate(results, 1):
            if count % tenth == 0 or count == total:
                print(f"{what}: {count} of {total}", file=sys.stderr)
            yield result
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, description=what, total=total, console=Console(stderr=True), transient=True)


def _threads(work: Callable[[str], T], items: Sequence[str]) -> Iterator[T]:
    with ThreadPoolExecutor(min(8, cores())) as pool:
        yield from pool.map(work, items)


def _processes(work: Callable[[str], T], items: Sequence[str], processes: int) -> Iterator[T]:
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
    # Forked children have `work`, and the dataset it belongs to, without pickling; spawned ones get it once each.
    with ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context(start), initializer=_begin, initargs=(work,)
    ) as pool:
        try:
            for results in pool.map(_chunk, chunks):
                yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_work: Callable[[str], Any] | None = None


def _begin(work: Callable[[str], Any]) -> None:
    global _work
    _work = work


def _chunk(items: Sequence[str]) -> list[Any]:
    assert _work is not None  # set when the process starts
    return [_work(item) for item in items]
