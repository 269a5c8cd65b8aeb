"""What stops a method of sparse labels before it trains: no label in train, labels outside K, kinds it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan.plan import Plan, make_plan

METHODS = ("pce", "ema", "gatedcrf", "agmm")
CLASSES, IMAGES, SIDE = ("sky", "road"), 6, 32


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A VOC-layout folder of eight pictures of two classes, without a background class."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    for split, count in (("train", IMAGES), ("val", 2)):
        ids = [f"{split}{i}" for i in range(count)]
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids))
        for number, image_id in enumerate(ids):
            Image.fromarray(np.full((SIDE, SIDE, 3), 30 * number, np.uint8)).save(
                tmp_path / f"JPEGImages/{image_id}.jpg"
            )
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[SIDE // 2 :] = 1
            save(tmp_path / f"SegmentationClass/{image_id}.png", mask)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return tmp_path


def save(path: Path, label: np.ndarray) -> None:
    Image.fromarray(label).save(path)


def plan(root: Path, *words: str) -> Plan:
    fixed = ["data=folder", f"data.root={root}", "tier=smoke", "backbone=shapes_vit", f"crop={SIDE}"]
    return make_plan(parse([*fixed, *words], Words, "sweep", registry().names()))


def refused(root: Path, *words: str) -> str:
    with pytest.raises(BadInput) as caught:
        plan(root, *words)
    assert all(problem.fix for problem in caught.value.problems)
    return str(caught.value)


def label_files(root: Path, value: int) -> None:
    """Point labels of one pixel, all of this value, of the training images and the one that is put aside for tuning."""
    (root / "point").mkdir()
    label = np.full((SIDE, SIDE), 255, np.uint8)
    label[5, 5] = value
    for i in range(IMAGES):
        save(root / f"point/train{i}.png", label)


@pytest.mark.parametrize("name", METHODS)
def test_label_files_without_a_label(scene: Path, name: str) -> None:
    label_files(scene, 255)
    assert "point: none of 5 images has a labelled pixel" in refused(scene, f"methods={name}", "labels=points")


@pytest.mark.parametrize("kind", ["points", "scribbles", "clicks20", "blocks"])
def test_masks_without_a_label_to_derive_from(scene: Path, kind: str) -> None:
    for i in range(IMAGES):
        save(scene / f"SegmentationClass/train{i}.png", np.full((SIDE, SIDE), 255, np.uint8))
    assert "there is no label in them but 255" in refused(scene, "methods=agmm", f"labels={kind}")


@pytest.mark.parametrize("name", METHODS)
def test_a_label_outside_the_classes(scene: Path, name: str) -> None:
    """2 is K, which AGMM writes for unlabelled; 7 is no label of anybody."""
    label_files(scene, 7)
    text = refused(scene, f"methods={name}", "labels=points")
    assert "label 7" in text
    assert "train0" in text


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["tags", "masks"])
def test_a_kind_that_a_method_cannot_read(scene: Path, name: str, kind: str) -> None:
    text = refused(scene, f"methods={name}", f"labels={kind}")
    assert kind in text
    assert "points" in text, "what it reads"


def test_a_kind_that_the_data_cannot_give(scene: Path) -> None:
    assert "coarse" in refused(scene, "methods=agmm", "labels=coarse")
    assert "point" in refused(scene, "methods=agmm", "labels=pointz")


def test_some_images_without_a_label_are_no_error(scene: Path) -> None:
    label_files(scene, 1)
    save(scene / "point/train3.png", np.full((SIDE, SIDE), 255, np.uint8))
    (study,) = plan(scene, "methods=agmm", "labels=points").studies
    assert study.run.labels == "points"
