"""Ray beside the rest of a plan: its processes start while networks are built, where a run is surely missing."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from harness.plan.plan import Plan
from harness.store import Store


def start_early(plan: Plan, stack: ExitStack) -> None:
    """Starts Ray on this machine for a plan whose words and data are good, until `stack` closes.

    Nothing starts for a dry run, without Ray, on a cluster, where the store cannot be written, which is told later, or
    where the first trial of every study stands in it: what is left there only the scheduler knows.
    """
    words = plan.words
    if words.dry_run or not words.ray or words.address is not None:
        return
    if not _writable(Store(plan.machine.store).root) or not first_trial_missing(plan):
        return
    from harness.tuning.ray_driver import runtime

    stack.enter_context(runtime(None))


def first_trial_missing(plan: Plan) -> bool:
    """Whether the first trial of some study, the preset's, stands in the store under no key that it ever had."""
    store = Store(plan.machine.store)
    for planned in plan.studies:
        study = planned.study
        first = plan.resolve(study, study.preset_knobs, study.seeds[0])
        if not any(key and store.has("runs", key) for key in (first.key, first.earlier_key)):
            return True
    return False


def _writable(folder: Path) -> bool:
    """Whether a folder, or the nearest above it that is there, lets files be made; makes none."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
