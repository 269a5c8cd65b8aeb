"""Folders that knobs name: checked and digested before anything trains, found again by that digest where a run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from harness.api.dataset import Dataset
from harness.api.recipe import Given
from harness.datasets.splits import SplitPlan
from harness.datasets.tools.given import GivenFolder
from harness.errors import BadInput, Problem
from harness.plan.config import RunConfig
from harness.plan.recipes import image_ids, knobs_of, recipe_of, spec_of

_FIX = "run the same command again: it plans anew with the files as they are now; or put them back and add retry=failed"


def with_digests(
    run: RunConfig, dataset: Dataset, splits: SplitPlan, folders: dict[str, str], warnings: list[Problem]
) -> RunConfig:
    """The run with digests for the folders that its knobs name; `folders` gets each by its digest.

    Raises BadInput with everything that is wrong with their files.
    """
    problems: list[Problem] = []
    for given in recipe_of(run).given:
        folder = Path(str(knobs_of(run, given)[given.knob])).expanduser().absolute()
        try:
            digest, odd = _folder(run, given, folder, dataset).check(image_ids(given.images, splits))
        except BadInput as e:
            problems += e.problems
            continue
        folders[digest] = str(folder)
        warnings += [w for w in odd if w not in warnings]
        knobs = {**knobs_of(run, given), given.knob: digest}
        own = given.owner == "own"
        run = dataclasses.replace(run, knobs=knobs) if own else dataclasses.replace(run, base_knobs=knobs)
    if problems:
        raise BadInput(problems)
    return run


def given_folders(run: RunConfig, folders: Mapping[str, str], dataset: Dataset) -> dict[str, GivenFolder]:
    """By artefact the folder that a planned run reads it from; `folders` are those of its machine."""
    return {
        given.name: _folder(run, given, Path(folders[knobs_of(run, given)[given.knob]]), dataset)
        for given in recipe_of(run).given
    }


def folder_changes(run: RunConfig, folders: Mapping[str, GivenFolder], splits: SplitPlan) -> list[Problem]:
    """What of the folders of a planned run is not as it was planned. Raises BadInput for files that do not fit now."""
    found = []
    for given in recipe_of(run).given:
        folder = folders[given.name]
        digest, _ = folder.check(image_ids(given.images, splits))
        if digest != knobs_of(run, given)[given.knob]:
            found.append(Problem(f"{folder.word}, {folder.folder}", "changed since the plan: its files", _FIX))
    return found


def _folder(run: RunConfig, given: Given, folder: Path, dataset: Dataset) -> GivenFolder:
    return GivenFolder(folder, given.holds, dataset, f"{spec_of(run, given).name}.{given.knob}")
