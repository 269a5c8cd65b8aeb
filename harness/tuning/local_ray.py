"""Ray on this machine alone, which starts once more where a busy machine takes longer than Ray allows itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from harness.errors import HarnessError

TRIES = 3
_TOO_SLOW = "timed out during startup"
"""So Ray puts that its own processes did not answer within 30 s, a number in its source. To wait longer would not help:
its raylet ends by itself where the agents beside it have not written their ports within 15 s (Ray's issue 65983)."""


def started(init: Callable[[], object]) -> None:
    """Calls `init`, which starts Ray. Raises HarnessError where it took too long TRIES times."""
    for last in (False,) * (TRIES - 1) + (True,):
        try:
            init()
            return
        except Exception as error:
            if _TOO_SLOW not in str(error):
                raise
            _end_half_started(error)
            busy = "Ray did not start within 30 s: too much else runs on this machine"
            if last:
                raise HarnessError(
                    f"{busy}. The same command goes on when it is quieter; ray=off needs no Ray"
                ) from error
            print(f"{busy}; once more", file=sys.stderr, flush=True)


def _end_half_started(error: Exception) -> None:
    """Ends what the failed start has left running: its node, which nobody else knows, is among the error's frames."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        end = getattr(frame.f_locals.get("self"), "kill_all_processes", None)
        if end is not None:
            end(check_alive=False, allow_graceful=False)
