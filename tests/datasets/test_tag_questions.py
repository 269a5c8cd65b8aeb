"""Classes that image-level labels cannot teach are told by `check`, and by the plan where tags are learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.datasets import open_dataset
from harness.datasets.tag_questions import tag_warnings
from harness.datasets.tools import checking
from harness.plan.plan import make_plan
from harness.tuning.describe import plan_text

Maker = Callable[..., Path]


def told(root: Path) -> list[str]:
    dataset = open_dataset("folder", root=str(root))
    return [problem.found for problem in tag_warnings(dataset, dataset.ids("train"))]


def masks_of(root: Path, write: Callable[..., None], classes: Callable[[int], tuple[int, ...]]) -> Path:
    for number, path in enumerate(sorted((root / "SegmentationClass").glob("a*.png"))):
        mask = np.zeros((24, 32), np.uint8)
        for at, label in enumerate(classes(number)):
            mask[5:13, 2 + 7 * at : 8 + 7 * at] = label
        write(path, mask)
    return root


def test_a_class_of_every_image_has_no_negatives(voc_folder: Maker, mask_writer: Callable[..., None]) -> None:
    root = masks_of(voc_folder(), mask_writer, lambda n: (1, 2) if n % 2 else (1,))
    assert told(root) == ["class cat is in all 12 training images: tags teach nothing of it (no negatives)"]
    masks_of(root, mask_writer, lambda n: (1, 2))
    (found,) = told(root)
    assert found == "classes cat, dog are in all 12 training images: tags teach nothing of them (no negatives)"
    masks_of(root, mask_writer, lambda n: (1, 2) if n else (2,))
    assert told(root) == ["class dog is in all 12 training images: tags teach nothing of it (no negatives)"]


def test_classes_that_come_together_alone_cannot_be_told_apart(
    voc_folder: Maker, mask_writer: Callable[..., None]
) -> None:
    root = masks_of(voc_folder(), mask_writer, lambda n: (1, 2) if n % 2 else ())
    assert told(root) == ["the same training images show cat and dog: tags cannot tell them apart"]
    masks_of(root, mask_writer, lambda n: (1, 2) if n % 2 else (2,) if n == 4 else ())
    assert told(root) == []


def test_check_and_the_plan_say_so_where_tags_are_learned_from(
    voc_folder: Maker, mask_writer: Callable[..., None], tmp_path: Path
) -> None:
    root = masks_of(voc_folder(), mask_writer, lambda n: (1, 2) if n % 2 else (1,))
    found = "class cat is in all 12 training images"
    assert any(found in p.found for p in checking.check(checking.survey("folder", root=str(root))).warnings)
    words = [f"data.root={root}", "data=folder", "backbone=shapes_vit", "tier=smoke", f"store={tmp_path}", "gpus=0"]
    plan = make_plan(parse(["methods=cam", *words], Words, "sweep"))
    assert "warning: labels=tags: class cat is in all 12 training images" in plan_text(plan)
    plan = make_plan(parse(["methods=full", *words], Words, "sweep"))
    assert "class cat" not in plan_text(plan)


def test_the_plan_warns_of_a_class_that_tuning_hardly_sees_and_of_odd_numbers(
    folder_maker: Maker, mask_writer: Callable[..., None], tmp_path: Path
) -> None:
    lists = {"train": [f"a{i:02d}" for i in range(30)], "val": ["v0", "v1"]}
    root = folder_maker(tmp_path / "mini", lists=lists, classes=None)
    masks_of(root, mask_writer, lambda n: (4,) if n < 2 else (1 + n % 2,))
    words = ["methods=cam", "data=folder", f"data.root={root}", "backbone=shapes_vit", "tier=smoke", "gpus=0"]
    text = plan_text(make_plan(parse([*words, f"store={tmp_path}"], Words, "sweep")))
    assert "labels 3 occur in no mask, yet 4 does: 5 classes are counted" in text
    assert "4 (1 of 2): train keeps at least half of them" in text
    text = plan_text(make_plan(parse([*words, f"store={tmp_path}", "protocol=fixed"], Words, "sweep")))
    assert "fewer than 3 images" not in text
