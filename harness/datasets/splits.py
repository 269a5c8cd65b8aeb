"""Which images are trained on, tuned on and reported (design section 4, Splits)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from harness.api.dataset import Dataset
from harness.errors import BadInput, Problem, nearest

TUNE_WORDS = ("auto", "val", "carve")
PROTOCOLS = ("fixed", "held-out", "oracle")
CARVED_SHARE = Fraction(1, 10)
CARVED_PER_CLASS = 3
CARVED = "train-carved"


@dataclass(frozen=True)
class SplitPlan:
    """Image ids that are trained on, tuned on and reported, and where the last two are from."""

    train: tuple[str, ...]
    tune: tuple[str, ...]
    report: tuple[str, ...]
    report_name: str
    """`test` or `val`, or the split that was asked for."""
    tune_name: str
    """`val`, `train-carved`, the reported split under `oracle`, or `none`."""


def plan_splits(
    dataset: Dataset, tune: str = "auto", protocol: str = "held-out", report: str | None = None
) -> SplitPlan:
    """Splits of a run. Reported: `report` where given, else `test` where it has masks, else `val`.

    `held-out` tunes on `val` where val and test both have masks, else on a tenth of train that is then not
    trained on; `tune` = val or carve asks for one of them. `oracle` tunes on the reported split. `fixed` chooses
    nothing and only watches `val`, where held-out would tune on it; both train on all of train.
    Raises BadInput where the dataset cannot give what is asked.
    """
    problems = [
        Problem(word, f"unknown value {value!r}", nearest(value, known))
        for word, value, known in (("data.tune", tune, TUNE_WORDS), ("protocol", protocol, PROTOCOLS))
        if value not in known
    ]
    has_masks = dataset.splits()
    candidates = (report,) if report else ("test", "val")
    report_name = next((split for split in candidates if has_masks.get(split)), None)
    if "train" not in has_masks:
        problems.append(Problem("data", f"{dataset.name} has no split train", "add it"))
    if report_name is None and report:
        known = ", ".join(split for split, has in has_masks.items() if has)
        problems.append(Problem("split", f"{dataset.name} has no masks for {report!r}", f"splits with masks: {known}"))
    elif report_name is None:
        problems.append(
            Problem(
                "data",
                f"{dataset.name} has masks for neither test nor val: nothing can be scored",
                "add the masks of one of them",
            )
        )
    elif protocol == "held-out" and tune == "val" and (report_name == "val" or not has_masks.get("val")):
        found = "val is the reported split" if report_name == "val" else "val has no masks"
        problems.append(
            Problem(
                "data.tune", f"val, but {found}", "data.tune=carve, or protocol=oracle to tune on the reported split"
            )
        )
    if problems or report_name is None:
        raise BadInput(problems)
    train = dataset.ids("train")
    scored = dataset.ids(report_name)
    if protocol == "oracle":
        return SplitPlan(train, scored, scored, report_name, report_name)
    if protocol == "fixed":
        # Nothing is chosen on it, but a run is shared with `held-out` where both train on the same images.
        if tune != "carve" and report_name == "test" and has_masks.get("val"):
            return SplitPlan(train, dataset.ids("val"), scored, report_name, "val")
        return SplitPlan(train, (), scored, report_name, "none")
    if tune == "val" or (tune == "auto" and report_name == "test" and has_masks.get("val")):
        return SplitPlan(train, dataset.ids("val"), scored, report_name, "val")
    carved = carve(dataset, train)
    kept = tuple(image_id for image_id in train if image_id not in carved)
    if not kept:
        raise BadInput(
            Problem(
                "data.tune",
                f"a tuning split would take all {len(train)} training images",
                "protocol=fixed, or add masks for both val and test",
            )
        )
    return SplitPlan(kept, tuple(i for i in train if i in carved), scored, report_name, CARVED)


def carve(dataset: Dataset, ids: tuple[str, ...]) -> frozenset[str]:
    """A tenth of these ids, at least 3 of each class (all of a class with fewer), chosen by a hash of the id.

    The choice does not depend on the order of the ids; a class that falls short takes its next images by hash.
    Images of one group (`Dataset.group_of`) stay together: then groups are what is counted.
    """
    members: dict[str, list[str]] = {}
    for image_id in ids:
        members.setdefault(dataset.group_of(image_id), []).append(image_id)
    by_hash = sorted(members, key=lambda group: (hashlib.sha256(group.encode()).digest(), group))
    chosen = set(by_hash[: max(1, round(len(by_hash) * CARVED_SHARE))])
    tags = {group: np.any([dataset.tags(image_id) for image_id in members[group]], axis=0) for group in by_hash}
    for c in range(dataset.num_classes):
        showing = [group for group in by_hash if tags[group][c]]
        lacking = min(CARVED_PER_CLASS, len(showing)) - sum(group in chosen for group in showing)
        spare = (group for group in showing if group not in chosen)
        chosen.update(group for group, _ in zip(spare, range(max(0, lacking)), strict=False))
    return frozenset(image_id for group in chosen for image_id in members[group])
