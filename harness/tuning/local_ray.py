"""Ray on this machine alone, which is waited for where a busy machine takes longer than Ray allows itself."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.errors import HarnessError

TRIES = 2
START_S = 120.0
"""Ray gives its own processes 30 s, a number in its source; a try anew begins from nothing on a machine as busy."""
EVERY_S = 0.2
_TOO_SLOW = "timed out during startup"
"""So Ray puts that its own processes did not answer in time."""


def started(init: Callable[[], object]) -> None:
    """Calls `init`, which starts Ray. Raises HarnessError where it took too long TRIES times."""
    for last in (False,) * (TRIES - 1) + (True,):
        try:
            with patient():
                init()
            return
        except Exception as error:
            if _TOO_SLOW not in str(error):
                raise
            _end_half_started(error)
            busy = f"Ray did not start within {START_S:.0f} s: too much else runs on this machine"
            if last:
                raise HarnessError(
                    f"{busy}. The same command goes on when it is quieter; ray=off needs no Ray"
                ) from error
            print(f"{busy}; once more", file=sys.stderr, flush=True)


@contextmanager
def patient() -> Iterator[None]:
    """While this lasts Ray asks for START_S whether its node is there, before it looks at its own clock."""
    from ray._private import services

    module: Any = services
    asked = module.get_node

    def get_node(*given: Any) -> Any:
        end = time.monotonic() + START_S
        while True:
            try:
                return asked(*given)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(EVERY_S)

    module.get_node = get_node
    try:
        yield
    finally:
        module.get_node = asked


def _end_half_started(error: Exception) -> None:
    """Ends what the failed start has left running: its node, which nobody else knows, is among the error's frames."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        end = getattr(frame.f_locals.get("self"), "kill_all_processes", None)
        if end is not None:
            end(check_alive=False, allow_graceful=False)
