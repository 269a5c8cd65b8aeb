"""Folders that one process is at: runs of one key, and stages that runs share, take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from harness.engine.parallel import gather_objects
from harness.engine.session import Session
from harness.errors import StoreError
from harness.files import Lease, plain_words, way_out

TURN = "lock"
"""Lock file of a folder: of the one process that is at it."""
POLL_SECONDS = 1.0
"""Between two looks at a folder that another process is at."""


@contextmanager
def turn(folder: Path, session: Session, waits: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a folder, which is made where it is missing; `waits` is called at each look that finds another process.

    The first worker holds the lock. All of them look for it together again and again: peers that waited in one
    collective for hours would run into its time limit. Raises StoreError where the folder cannot be written.
    """
    while True:
        handle = lock(folder) if session.rank == 0 else None
        if gather_objects(handle is not None, session)[0]:
            break
        waits()
        time.sleep(POLL_SECONDS)
    with handle or nullcontext():
        yield


def lock(folder: Path, name: str = TURN, *, shared: bool = False) -> Lease | None:
    """A lock of a folder; None while another process holds it, or has just removed the folder.

    Raises StoreError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Lease.take(folder / name, shared=shared)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise StoreError(f"cannot write into {folder}: {plain_words(e)}; {way_out(e)}") from e
