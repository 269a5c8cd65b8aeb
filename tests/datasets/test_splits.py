"""Reported and tuning splits, and the carved one: its size, its classes, and that the order of the list is nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.datasets import open_dataset
from harness.datasets.splits import carve, plan_splits
from harness.datasets.weak.deriving import DerivingDataset
from harness.errors import BadInput


class Tagged(DerivingDataset):
    """Ids with tags and nothing else."""

    name, family, has_background = "tagged", "voc", True

    def __init__(self, tags: Mapping[str, tuple[int, ...]], splits: Mapping[str, bool], classes: int = 3):
        self.class_names = ("background", *(f"c{i}" for i in range(classes)))
        self._tags, self._splits = tags, dict(splits)

    def splits(self) -> dict[str, bool]:
        return self._splits

    def ids(self, split: str) -> tuple[str, ...]:
        return tuple(self._tags) if split == "train" else (f"{split}0", f"{split}1")

    def image(self, image_id: str) -> NDArray[np.uint8]:
        raise AssertionError("splits need no pixels")

    mask = image

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        return ""

    def tags(self, image_id: str) -> NDArray[np.float32]:
        tags = np.zeros(self.num_classes, np.float32)
        tags[list(self._tags[image_id])] = 1
        return tags


COMMON = {f"i{n}": (n % 2,) for n in range(100)}
BOTH = {"train": True, "val": True, "test": True}


@pytest.mark.parametrize(
    ("splits", "protocol", "tune", "expected"),
    [
        (BOTH, "held-out", "auto", ("test", "val", 100)),
        (BOTH, "held-out", "carve", ("test", "train-carved", 90)),
        (BOTH, "held-out", "val", ("test", "val", 100)),
        (BOTH, "oracle", "auto", ("test", "test", 100)),
        (BOTH, "fixed", "auto", ("test", "val", 100)),
        (BOTH, "fixed", "carve", ("test", "none", 100)),
        ({"train": True, "val": True}, "fixed", "auto", ("val", "none", 100)),
        ({"train": True, "val": True, "test": False}, "held-out", "auto", ("val", "train-carved", 90)),
        ({"train": True, "val": True}, "held-out", "auto", ("val", "train-carved", 90)),
        ({"train": True, "val": True}, "oracle", "auto", ("val", "val", 100)),
        ({"train": True, "val": False, "test": True}, "held-out", "auto", ("test", "train-carved", 90)),
        ({"train": True, "test": True}, "fixed", "carve", ("test", "none", 100)),
    ],
)
def test_splits_follow_the_design(
    splits: dict[str, bool], protocol: str, tune: str, expected: tuple[str, str, int]
) -> None:
    plan = plan_splits(Tagged(COMMON, splits), tune, protocol)
    assert (plan.report_name, plan.tune_name, len(plan.train)) == expected
    assert plan.report == (f"{plan.report_name}0", f"{plan.report_name}1")
    assert set(plan.train).isdisjoint(plan.report)
    if protocol == "oracle":
        assert plan.tune == plan.report
    elif plan.tune_name == "none":
        assert plan.tune == ()
    else:
        assert set(plan.tune).isdisjoint(plan.train)
        assert set(plan.tune).isdisjoint(plan.report)


def test_the_reported_split_can_be_asked_for() -> None:
    plan = plan_splits(Tagged(COMMON, BOTH), report="val")
    assert (plan.report_name, plan.tune_name, len(plan.train)) == ("val", "train-carved", 90)
    with pytest.raises(BadInput, match="no masks for 'test'\n    fix: splits with masks: train, val"):
        plan_splits(Tagged(COMMON, {"train": True, "val": True, "test": False}), report="test")


def test_carved_and_kept_are_train_in_list_order() -> None:
    plan = plan_splits(Tagged(COMMON, BOTH), "carve")
    order = list(COMMON)
    assert sorted(plan.train + plan.tune, key=order.index) == order
    assert list(plan.train) == sorted(plan.train, key=order.index)
    assert list(plan.tune) == sorted(plan.tune, key=order.index)


def test_a_carved_split_never_changes() -> None:
    """Frozen: a change of this list changes every key of every folder."""
    ids = {f"i{n}": () for n in range(40)}
    assert sorted(carve(Tagged(ids, BOTH), tuple(ids))) == ["i25", "i28", "i30", "i5"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 4)), min_size=2, max_size=60), st.randoms(use_true_random=False))
def test_carving_holds_its_rules(tags: list[set[int]], shuffler: random.Random) -> None:
    table = {f"im_{n}": tuple(sorted(t)) for n, t in enumerate(tags)}
    dataset = Tagged(table, BOTH, classes=5)
    carved = carve(dataset, tuple(table))
    shuffled = list(table)
    shuffler.shuffle(shuffled)
    assert carve(dataset, tuple(shuffled)) == carved
    assert len(carved) >= max(1, round(len(table) / 10))
    for c in range(5):
        members = {image_id for image_id, present in table.items() if c in present}
        assert len(members & carved) >= min(3, len(members))


def test_only_rare_classes_take_more_than_a_tenth() -> None:
    plain = carve(Tagged(COMMON, BOTH), tuple(COMMON))
    assert len(plain) == 10
    rare = {**COMMON, "x0": (3,), "x1": (3,), "y0": (4,), "y1": (4,), "y2": (4,), "y3": (4,)}
    carved = carve(Tagged(rare, BOTH, classes=5), tuple(rare))
    assert {"x0", "x1"} <= carved
    assert len(carved & {"y0", "y1", "y2", "y3"}) == 3
    assert len(carved - {"x0", "x1", "y0", "y1", "y2", "y3"}) <= 11


@pytest.mark.parametrize(
    ("splits", "protocol", "tune", "message"),
    [
        ({"train": True, "val": False}, "held-out", "auto", "nothing can be scored"),
        ({"val": True}, "held-out", "auto", "no split train"),
        ({"train": True, "val": True}, "held-out", "val", "val, but val is the reported split"),
        ({"train": True, "val": False, "test": True}, "held-out", "val", "val, but val has no masks"),
        (BOTH, "heldout", "auto", r"did you mean held-out\?"),
        (BOTH, "held-out", "vall", r"did you mean val\?"),
    ],
)
def test_what_cannot_be_given_is_refused(splits: dict[str, bool], protocol: str, tune: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        plan_splits(Tagged(COMMON, splits), tune, protocol)


def test_a_train_split_that_would_vanish_is_refused() -> None:
    with pytest.raises(BadInput, match="would take all 3 training images"):
        plan_splits(Tagged({"a": (0,), "b": (0,), "c": (0,)}, BOTH), "carve")


def test_real_photos_leave_every_class_on_both_sides(real_data: Path) -> None:
    dataset = open_dataset("folder", root=str(real_data / "pets3"))
    plan = plan_splits(dataset)
    assert (plan.report_name, plan.tune_name, len(plan.report)) == ("val", "train-carved", 201)
    assert len(plan.tune) == 40
    for ids in (plan.train, plan.tune):
        assert (np.stack([dataset.tags(image_id) for image_id in ids]).sum(0) >= 3).all()
