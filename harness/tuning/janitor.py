"""Frees the placement groups of nested trainers whose controller died with a stopped trial.

Ray 2.60's own cleaner asks the state API, which needs a dashboard; the tables below need none.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import ray
from ray import tune
from ray._private import state
from ray.util.placement_group import PlacementGroup, remove_placement_group

EVERY_S = 2.0
NO_ACTOR = b"\xff" * 12
"""How the id starts where a driver, not an actor, created the group; the job's id follows."""

# Generated protobuf code: no type checker sees its members.
tables: Any = importlib.import_module("ray.core.generated.gcs_pb2")


def remove_orphans() -> int:
    """Removes the placement groups whose creating actor is dead; answers how many there were."""
    accessor = state.state._connect_and_get_accessor()
    removed = 0
    for raw in accessor.get_placement_group_table():
        group = tables.PlacementGroupTableData.FromString(raw)
        if group.state == tables.PlacementGroupTableData.REMOVED or not _creator_is_dead(accessor, group):
            continue
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
        removed += 1
    return removed


def _creator_is_dead(accessor: Any, group: Any) -> bool:
    if group.creator_actor_id.startswith(NO_ACTOR):
        return False
    raw = accessor.get_actor_info(ray.ActorID(group.creator_actor_id))
    return raw is not None and tables.ActorTableData.FromString(raw).state == tables.ActorTableData.DEAD


class Janitor(tune.Callback):
    """Removes orphaned placement groups every two seconds while a Tuner runs."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune after each round of its loop."""
        if time.monotonic() - self._last >= EVERY_S:
            remove_orphans()
            self._last = time.monotonic()
