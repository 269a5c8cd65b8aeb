"""Sparse labels in plans: one study a kind, the network of the rows beside, label files in the key."""

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


def plan(*words: str) -> Plan:
    return make_plan(parse(list(words), Words, "sweep", registry().names()))


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A VOC-layout folder of eight pictures."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    for split, count in (("train", 6), ("val", 2)):
        ids = [f"{split}{i}" for i in range(count)]
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids))
        for number, image_id in enumerate(ids):
            Image.fromarray(np.full((32, 32, 3), 30 * number, np.uint8)).save(tmp_path / f"JPEGImages/{image_id}.jpg")
            mask = np.zeros((32, 32), np.uint8)
            mask[4:20, 5:25] = 1
            Image.fromarray(mask).save(tmp_path / f"SegmentationClass/{image_id}.png")
    (tmp_path / "classes.txt").write_text("background\nthing\n")
    return tmp_path


def keys(made: Plan) -> dict[str, str]:
    return {s.run.labels: made.resolve(s.study, {}, 0).key for s in made.studies}


def test_one_study_a_kind_on_the_network_of_the_rows_beside() -> None:
    small = ["data.n_train=16", "data.n_val=4", "data.n_test=4"]
    made = plan(*small, "methods=cam,pce,full", "labels=tags,points,scribbles")
    rows = [(s.run.method, s.run.labels) for s in made.studies]
    assert rows == [("cam", "tags"), ("pce", "points"), ("pce", "scribbles"), ("full", "masks")]
    assert len({(s.run.backbone, s.run.decoder) for s in made.studies}) == 1
    alone = plan(*small, "methods=pce,full", "labels=clicks20", "decoder=deeplabv3plus", "backbone=shapes_cnn")
    assert {(s.run.backbone, s.run.decoder) for s in alone.studies} == {("shapes_cnn", "deeplabv3plus")}


def test_label_files_decide_keys_and_bad_ones_stop_the_plan(street: Path) -> None:
    words = ("methods=pce,full", "labels=points,scribbles", "data=folder", f"data.root={street}", "tier=smoke")
    words = (*words, "backbone=shapes_vit", "crop=32")
    derived = keys(plan(*words))
    label = np.full((32, 32), 255, np.uint8)
    label[6, 6], label[0, 0] = 1, 0
    (street / "point").mkdir()
    for i in range(6):
        Image.fromarray(label).save(street / f"point/train{i}.png")
    read = keys(plan(*words))
    assert {kind for kind in read if read[kind] != derived[kind]} == {"points"}
    label[7, 7] = 1
    Image.fromarray(label).save(street / "point/train3.png")
    assert keys(plan(*words))["points"] not in (read["points"], derived["points"])
    (street / "point/train3.png").unlink()
    Image.fromarray(label[:8]).save(street / "point/train4.png")
    with pytest.raises(BadInput) as caught:
        plan(*words)
    assert "no labels for 1 images: train3" in str(caught.value)
    assert "labels of 32x8 pixels, image of 32x32" in str(caught.value)
