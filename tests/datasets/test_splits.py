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


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.integers(0, 4)), min_size=2, max_size=60), st.randoms(use_true_random=False))
def test_carving_holds_its_rules(tags: list[set[int]], shuffler: random.Random) -> None:
    table = {f"im_{n}": tuple(sorted(t)) for n, t in enumerate(tags)}
    dataset = Tagged(table, BOTH, classes=5)
    carved = carve(dataset, tuple(table))
    shuffled = list(table)
    shuffler.shuffle(shuffled)
    assert carve(dataset, tuple(shuffled)) == carved
    assert 5 * len(carved) <= len(table)
    for c in range(5):
        members = {image_id for image_id, present in table.items() if c in present}
        kept = len(members - carved)
        assert kept >= min(1, len(members))
        assert 2 * kept >= len(members)


def test_only_rare_classes_take_more_than_a_tenth() -> None:
    plain = carve(Tagged(COMMON, BOTH), tuple(COMMON))
    assert len(plain) == 10
    rare = {**COMMON, "x0": (3,), "x1": (3,), **{f"y{n}": (4,) for n in range(6)}}
    carved = carve(Tagged(rare, BOTH, classes=5), tuple(rare))
    assert len(carved & {"x0", "x1"}) == 1, "half of two"
    assert len(carved & {f"y{n}" for n in range(6)}) == 3
    assert len(carved & COMMON.keys()) <= 11


@pytest.mark.parametrize(("images", "carved"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (9, 3)])
def test_a_class_of_few_images_keeps_half_of_them(images: int, carved: int) -> None:
    rare = {**COMMON, **{f"cow{n}": (2,) for n in range(images)}}
    dataset = Tagged(rare, BOTH)
    plan = plan_splits(dataset, "carve")
    cows = [image_id for image_id in plan.tune if image_id.startswith("cow")]
    assert len(cows) == carved
    if carved < 3:
        (warning,) = plan.warnings
        assert f"c2 ({carved} of {images})" in warning.found
        assert "protocol=fixed" in warning.fix
    else:
        assert plan.warnings == ()


def test_many_rare_classes_do_not_eat_the_training_set() -> None:
    """Twenty classes of four images each: 3 of each would be 60 of 80."""
    table = {f"i{n}": (n // 4,) for n in range(80)}
    plan = plan_splits(Tagged(table, BOTH, classes=20), "carve")
    assert len(plan.tune) == 16
    told = plan.warnings[0].found
    assert told.startswith("the tuning split shows fewer than 3 images of c0 (2 of 4), ")
    kept = np.bincount([table[i][0] for i in plan.train], minlength=20)
    assert kept.min() >= 2


def test_groups_are_carved_whole_and_counted_by_image() -> None:
    class Slices(Tagged):
        def group_of(self, image_id: str) -> str:
            return image_id.partition("_")[0]

    table = {f"p{n:02d}_{s}": (0,) for n in range(20) for s in range(5)}
    carved = carve(Slices(table, BOTH), tuple(table))
    patients = {image_id.partition("_")[0] for image_id in carved}
    assert len(patients) == 3, "2 are a tenth, 3 show the class"
    assert len(carved) == 15
    table |= {f"big_{n}": (1,) for n in range(60)}
    assert not any(i.startswith("big") for i in carve(Slices(table, BOTH), tuple(table))), "more than a fifth of all"


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


@pytest.mark.parametrize("table", [{f"i{n}": (0,) for n in range(4)}, {f"i{n}": (n,) for n in range(8)}])
def test_a_train_split_with_nothing_to_spare_is_refused(table: dict[str, tuple[int, ...]]) -> None:
    """Four images have no fifth; of eight classes with one image each none can be spared."""
    dataset = Tagged(table, BOTH, classes=8)
    with pytest.raises(BadInput, match=f"no tuning split can be carved from {len(table)} training images") as caught:
        plan_splits(dataset, "carve")
    assert "protocol=fixed" in caught.value.problems[0].fix
    assert plan_splits(dataset, "carve", "fixed").train == tuple(table)


def test_real_photos_leave_every_class_on_both_sides(real_data: Path) -> None:
    dataset = open_dataset("folder", root=str(real_data / "pets3"))
    plan = plan_splits(dataset)
    assert (plan.report_name, plan.tune_name, len(plan.report)) == ("val", "train-carved", 201)
    assert len(plan.tune) == 40
    for ids in (plan.train, plan.tune):
        assert (np.stack([dataset.tags(image_id) for image_id in ids]).sum(0) >= 3).all()
