"""A photo in two splits under two ids is told by `check` and by the plan, with the ids."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.datasets.same_photos import same_photos
from harness.datasets.tools import checking
from harness.plan.plan import make_plan
from harness.tuning.describe import plan_text

Maker = Callable[..., Path]
TRAIN = "keep one of each in the lists: a score on photos that were learned from is too high"


def told(digests: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    return [(p.found, p.fix) for p in same_photos(digests)]


def test_pairs_by_hand():
    train, val, test = {"a": "1", "b": "2", "c": "2"}, {"v": "2", "w": "9"}, {"t": "9", "a": "1"}
    assert told({"train": train, "val": val, "test": test}) == [
        ("1 photo of val is in train too: b = v of val", TRAIN),
        ("1 photo of test is in val too: w = t of test",
         "keep one of each in the lists: what is chosen on reported photos says too much of them"),
    ]  # fmt: skip
    assert told({"train": {"a": "1", "b": "1"}, "val": {"v": "2"}}) == []
    assert told({"train": {}, "none": {}, "val": {"v": "2"}}) == []
    many = {f"v{i}": str(i) for i in range(9)}
    assert told({"train": {f"a{i}": str(i) for i in range(9)}, "val": many})[0][0] == (
        "9 photos of val are in train too: a0 = v0 of val, a1 = v1 of val, a2 = v2 of val, a3 = v3 of val, ..."
    )


def warned(root: Path) -> list[str]:
    return [p.found for p in checking.check(checking.survey("folder", root=str(root))).warnings if " too: " in p.found]


def plan_of(root: Path, *words: str) -> str:
    argv = [
        "methods=full",
        "data=folder",
        f"data.root={root}",
        "backbone=shapes_vit",
        "tier=smoke",
        "crop=48",
        "gpus=0",
    ]
    return plan_text(make_plan(parse([*argv, *words], Words, "sweep", ["full"])))


def test_check_and_plan_say_it(voc_folder: Maker) -> None:
    root = voc_folder()
    assert warned(root) == []
    photos = root / "JPEGImages"
    shutil.copy(photos / "a3.jpg", photos / "t1.jpg")
    assert warned(root) == ["1 photo of test is in train too: a3 = t1 of test"]
    shutil.copy(photos / "a3.jpg", photos / "v0.jpg")
    both = ["1 photo of val is in train too: a3 = v0 of val", "1 photo of test is in train too: a3 = t1 of test",
            "1 photo of test is in val too: v0 = t1 of test"]  # fmt: skip
    assert sorted(warned(root)) == sorted(both)
    text = plan_of(root)
    assert all(found in text for found in both)
    assert TRAIN in text
    # What is neither trained on, tuned on nor reported says nothing of a score.
    assert "of test" not in plan_of(root, "split=val", "protocol=oracle")


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8 cut"])
def test_damaged_photos_are_no_pair(voc_folder: Maker, damage: bytes) -> None:
    root = voc_folder()
    for name in ("a3", "t1"):
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(damage)
    assert warned(root) == []
