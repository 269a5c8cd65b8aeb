"""The data of a finished run, found where its sweep had it or where the words say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.dataset import Dataset
from harness.datasets import open_dataset
from harness.datasets.splits import SplitPlan, plan_splits
from harness.errors import BadInput, Problem, StoreError
from harness.plan.config import RunConfig
from harness.store import Store
from harness.store.rows import json_object, json_of


def open_data(
    run: RunConfig,
    row: Mapping[str, Any],
    store: Store,
    root: str | None,
    classes: str | None,
    problems: list[Problem],
) -> tuple[Dataset, SplitPlan] | None:
    """A run's dataset with its classes, and its splits; what is wrong is added to the problems."""
    given = _given(store, str(row["sweep"]), run.dataset)
    options = {k: v for k, v in run.options.items() if k != "tune"}
    try:
        dataset = open_dataset(
            run.dataset,
            root=root or given.get("data.root"),
            masks=run.masks,
            classes=classes or given.get("data.classes"),
            options=options,
        )
        splits = plan_splits(dataset, run.options.get("tune", "auto"), str(row["protocol"]), report=run.split)
    except BadInput as e:
        problems.extend(e.problems)
        return None
    known = json_of(row, "config").get("class_names")
    if known and list(dataset.class_names) != known:
        names = ", ".join(dataset.class_names[:5])
        problems.append(Problem("data", f"has classes {names}, ..., not those of the run", "name the run's own data"))
    return dataset, splits


def check_same(
    row: Mapping[str, Any], role: str, split: str, dataset: Dataset, ids: tuple[str, ...], problems: list[Problem]
) -> None:
    """A problem where the images or labels of a role (`train`, `tune`, `report`) are not those that a run had."""
    before = json_of(row, "split_fingerprints").get(role)
    if before and dataset.fingerprint(ids) != before:
        what = {"report": "reported", "tune": "tuned", "train": "trained"}[role]
        found = f"{split} of {dataset.name} is not what the run was {what} on: images or labels differ"
        problems.append(Problem("data", found, "data.root=<the folder that it was trained on>"))


def _given(store: Store, sweep: str, dataset: str) -> Mapping[str, str]:
    """The words of the sweep that made a run, for where its data lies; empty where nobody knows."""
    try:
        outline = json_object((store.root / "sweeps" / f"{sweep}.json").read_text(), f"the plan of sweep {sweep}")
    except (OSError, ValueError, StoreError):
        return {}
    rows = outline.get("words", [])
    for given in rows if isinstance(rows, list) else [rows]:
        if isinstance(given, dict) and given.get("data", given.get("data.name", "shapes")) == dataset:
            return given
    return {}
