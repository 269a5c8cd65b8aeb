"""Machines that a cluster cannot get: said while a sweep waits for them, and the end of it where none comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from ray.exceptions import RayError
from ray.tune import Callback
from ray.tune.experiment import Trial

from harness.errors import HarnessError

EVERY_S = 10.0
GIVE_UP_S = 40.0
"""A sweep without a machine ends so long after the first launch failed, unless one is on its way by then."""


class NoMachines(HarnessError):
    """A cluster got none of the machines that a sweep waits for."""


def reasons(launches: Iterable[Any], since: float) -> str:
    """Why launches have failed since then, each kind of machine once with its newest reason; empty where none has.

    `launches`: `failed_launches` of Ray's cluster status.
    """
    found: dict[str, tuple[float, int, str]] = {}
    for launch in launches:
        at = float(launch.failed_ts_s or launch.request_ts_s or 0)
        if at + 1 < since:
            continue
        newest, n, text = found.get(launch.ray_node_type_name, (-1.0, 0, ""))
        if at >= newest:
            newest, text = at, " ".join((launch.details or "no reason given").split())
        found[launch.ray_node_type_name] = (newest, n + launch.count, text)
    return "; ".join(f"{name} ({n} asked for): {text[:300]}" for name, (_, n, text) in sorted(found.items()))


class LaunchWatch(Callback):
    """Looks at the autoscaler while no machine holds a run: says its failed launches once, then ends the sweep."""

    def __init__(
        self,
        status: Callable[[], Any],
        fits: Callable[[], int],
        end: Callable[[Exception], None],
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
        clock: Callable[[], float] = time.time,
    ):
        """`status`: Ray's cluster status. `fits`: runs that the machines hold now. `end`: ends the sweep."""
        self._status, self._fits, self._end, self._say, self._clock = status, fits, end, say, clock
        self._since = self._last = clock()
        self._failing: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts at the start, and a sweep resumes from its store."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune after each round of its loop."""
        now = self._clock()
        if now - self._last < EVERY_S:
            return
        self._last = now
        if self._fits() > 0:
            self._failing, self._since = None, now
            return
        try:
            status = self._status()
        except RayError:
            return  # a head that does not answer is watched, and said, by harness.tuning.head
        why = reasons(status.failed_launches, self._since)
        if not why or status.pending_nodes:
            return
        if self._failing is None:
            self._failing = now
            self._say(f"waiting for machines; the cluster cannot start {why}")
        elif now - self._failing >= GIVE_UP_S:
            self._end(
                NoMachines(
                    f"no machine came for {now - self._since:.0f} s: the cluster cannot start {why}. "
                    "What has run is in the store; the same command goes on from there"
                )
            )
