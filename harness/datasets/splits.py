"""Which images are trained on, tuned on and reported (design section 4, Splits)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.vocabulary import PROTOCOLS
from harness.datasets.io.images import some_of
from harness.errors import BadInput, Problem, nearest

TUNE_WORDS = ("auto", "val", "carve")
CARVED_SHARE = Fraction(1, 10)
CARVED_MOST = Fraction(1, 5)
CARVED_PER_CLASS = 3
CARVED = "train-carved"
OTHER_WAYS = (
    "protocol=fixed trains on all of train and tunes nothing, protocol=oracle tunes on the reported split (marked), "
    "masks for both val and test tune on val"
)
"""How to do without a carved split."""


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
    warnings: tuple[Problem, ...] = ()
    """What the carved split could not have."""


def plan_splits(
    dataset: Dataset, tune: str = "auto", protocol: str = "held-out", report: str | None = None
) -> SplitPlan:
    """Splits of a run. Reported: `report` where given, else `test` where it has masks, else `val`.

    `held-out` tunes on `val` where val and test both have masks, else on a tenth of train that is then not
    trained on; `tune` = val or carve asks for one of them. `oracle` tunes on the reported split. `fixed` chooses
    nothing and only watches `val`, where held-out would tune on it; both train on all of train.
    Raises BadInput where the dataset cannot give what is asked, also where train is too small for `carve`.
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
    if not carved:
        found = f"no tuning split can be carved from {len(train)} training images: it takes a fifth of them at most"
        found += ", and a class keeps half of its images to be trained on"
        raise BadInput(Problem("data.tune", found, OTHER_WAYS))
    kept = tuple(image_id for image_id in train if image_id not in carved)
    tune_ids = tuple(image_id for image_id in train if image_id in carved)
    return SplitPlan(kept, tune_ids, scored, report_name, CARVED, _short(dataset, kept, tune_ids))


def carve(dataset: Dataset, ids: tuple[str, ...]) -> frozenset[str]:
    """A tenth of these ids, and up to 3 of each class, chosen by a hash of the id: a fifth of them at most.

    A class keeps at least half of its images, and one in any case, so that it can be learned; then the carved split
    has fewer of it, or none. The choice does not depend on the order of the ids; a class that falls short takes its
    next images by hash. Images of one group (`Dataset.group_of`) stay together: a tenth and 3 then count groups,
    a fifth and halves count images. Empty where that leaves nothing.
    """
    members: dict[str, list[str]] = {}
    for image_id in ids:
        members.setdefault(dataset.group_of(image_id), []).append(image_id)
    by_hash = sorted(members, key=lambda group: (hashlib.sha256(group.encode()).digest(), group))
    showing = {group: np.sum([dataset.tags(i) for i in members[group]], axis=0).astype(np.int64) for group in by_hash}
    taking = _Taking(members, showing, images=len(ids), classes=dataset.num_classes)
    taking.take(by_hash, max(1, round(len(by_hash) * CARVED_SHARE)))
    for c in range(dataset.num_classes):
        of_class = [group for group in by_hash if showing[group][c]]
        lacking = min(CARVED_PER_CLASS, len(of_class)) - sum(group in taking.chosen for group in of_class)
        taking.take([group for group in of_class if group not in taking.chosen], lacking)
    return frozenset(image_id for group in taking.chosen for image_id in members[group])


class _Taking:
    """Groups that are taken from train one by one, as long as train and each class keep enough images."""

    def __init__(
        self, members: Mapping[str, list[str]], showing: Mapping[str, NDArray[np.int64]], *, images: int, classes: int
    ):
        self.members, self.showing = members, showing
        self.chosen: set[str] = set()
        self._left = int(images * CARVED_MOST)
        held_C = sum(showing.values(), np.zeros(classes, np.int64))
        self._spare_C = np.minimum(held_C // 2, np.maximum(held_C - 1, 0))

    def take(self, groups: Iterable[str], count: int) -> None:
        """Choose the first `count` of these groups that can be spared."""
        for group in groups:
            if count <= 0:
                return
            images = len(self.members[group])
            if images <= self._left and (self.showing[group] <= self._spare_C).all():
                self.chosen.add(group)
                self._left -= images
                self._spare_C = self._spare_C - self.showing[group]
                count -= 1


def _short(dataset: Dataset, kept: tuple[str, ...], carved: tuple[str, ...]) -> tuple[Problem, ...]:
    """A warning of the classes that a carved split shows in fewer than 3 images though train has some."""
    zero = np.zeros(dataset.num_classes, np.int64)
    kept_C, carved_C = (sum((dataset.tags(i).astype(np.int64) for i in ids), zero) for ids in (kept, carved))
    names = dataset.class_names[int(dataset.has_background) :]
    few = [c for c in range(dataset.num_classes) if kept_C[c] and carved_C[c] < CARVED_PER_CLASS]
    if not few:
        return ()
    told = some_of((f"{names[c]} ({carved_C[c]} of {kept_C[c] + carved_C[c]})" for c in few), 8)
    found = f"the tuning split shows fewer than {CARVED_PER_CLASS} images of {told}: train keeps at least half of them"
    return (Problem("data.tune", f"{found}, and four fifths of all", OTHER_WAYS),)
