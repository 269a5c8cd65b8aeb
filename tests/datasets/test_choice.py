"""`data.keep` and `data.drop`: which classes are scored and trained on, in masks, tags, sparse labels and keys."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.api.classes import choose
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.data import main
from harness.datasets import open_dataset
from harness.datasets.disk.files import FileDataset
from harness.errors import BadInput
from harness.plan.config import RunConfig
from harness.plan.plan import make_plan

Maker = Callable[..., Path]
NAMES = ("background", "cat", "dog", "cow")


@pytest.fixture
def root(voc_folder: Maker, mask_writer: Callable[..., None]) -> Path:
    """Image n shows cat, dog or cow by its number; a border of 255."""
    made = voc_folder(classes=NAMES)
    for number, path in enumerate(sorted((made / "SegmentationClass").glob("*.png"))):
        mask = np.zeros((24, 32), np.uint8)
        mask[4:14, 5:20] = 255
        mask[5:13, 6:19] = 1 + number % 3
        mask[16:20, 2:8] = 2
        mask_writer(path, mask)
    return made


def opened(root: Path, **options: str) -> FileDataset:
    dataset = open_dataset("folder", root=str(root), options=options)
    assert isinstance(dataset, FileDataset)
    return dataset


@pytest.mark.parametrize(
    "options", [{"keep": "cat,cow"}, {"keep": "cow , cat"}, {"drop": "dog"}, {"keep": "background,cat,cow"}]
)
def test_classes_that_do_not_stay_become_255_and_the_others_move_up(root: Path, options: dict[str, str]) -> None:
    whole, some = opened(root), opened(root, **options)
    assert (some.class_names, some.has_background, some.num_classes) == (("background", "cat", "cow"), True, 2)
    some.check(some.ids("train") + some.ids("val"))
    table = np.array([0, 1, 255, 2, *[255] * 252], np.uint8)
    copy = pickle.loads(pickle.dumps(some))
    for image_id in some.ids("train"):
        expected = table[whole.mask(image_id)]
        assert np.array_equal(some.mask(image_id), expected)
        assert np.array_equal(copy.mask(image_id), expected)
        assert some.tags(image_id).tolist() == [float((expected == 1).any()), float((expected == 2).any())]
        for kind in ("points", "scribbles", "clicks20", "blocks"):
            label = some.weak(image_id, kind)
            told = label != 255
            assert np.array_equal(label[told], expected[told])


def test_every_choice_is_another_dataset_to_the_keys(root: Path, folder_maker: Maker, tmp_path: Path) -> None:
    ids = opened(root).ids("train")
    digests = [opened(root, **o).fingerprint(ids) for o in ({}, {"keep": "cat"}, {"keep": "cat,cow"}, {"drop": "cat"})]
    assert len(set(digests)) == 4
    assert opened(root, drop="dog").fingerprint(ids) == digests[2]
    # The same names over the same files, but of other label values, are other labels.
    other = root.with_name("other")
    root.rename(other)
    (other / "classes.txt").write_text("background\ncow\ndog\ncat\n")
    assert opened(other, keep="cat").class_names == ("background", "cat")
    assert opened(other, keep="cat").fingerprint(ids) not in digests


def test_label_files_and_given_tags_are_read_in_the_numbers_of_the_files(
    root: Path, mask_writer: Callable[..., None], tmp_path: Path
) -> None:
    (root / "points").mkdir()
    for image_id in opened(root).ids("train"):
        dots = np.full((24, 32), 255)
        dots[0, 0], dots[8, 8], dots[17, 3] = 0, 3, 2
        mask_writer(root / f"points/{image_id}.png", dots)
    some = opened(root, keep="cow")
    label = some.weak(some.ids("train")[0], "points")
    assert [label[0, 0], label[8, 8], label[17, 3]] == [0, 1, 255]
    tags = tmp_path / "tags.json"
    tags.write_text("{" + ", ".join(f'"{i}": ["cat", "cow"]' for i in some.ids("train")) + "}")
    assert opened(root, keep="cow,dog", tags=str(tags)).tags("a0").tolist() == [0.0, 1.0]


def test_wrong_words_are_answered(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (
        ({"keep": "cat,dok"}, "data.keep: no class 'dok'\n    fix: did you mean dog?"),
        ({"drop": "cat,dog,cow"}, "data.drop: no class is left"),
        ({"keep": "background"}, "data.keep: no class is left"),
        ({"drop": "background"}, "background is what no class covers: it stays"),
        ({"keep": "cat", "drop": "dog"}, "is given beside data.keep"),
        ({"keep": ","}, "names no class"),
    ):
        with pytest.raises(BadInput) as caught:
            opened(root, **options)
        assert told in str(caught.value)
    with pytest.raises(BadInput, match=r"data.keep: shapes has no choice of classes"):
        open_dataset("shapes", options={"keep": "disc"})
    assert main(["check", "data=folder", f"data.root={root}", "data.keep=cat,dok"]) == 2
    assert "did you mean dog?" in capsys.readouterr().err
    assert main(["check", "data=folder", f"data.root={root}", "data.drop=cow"]) == 0
    text = capsys.readouterr().out
    assert "cow" not in text
    assert "  2 dog" in text


def test_without_background_classes_count_from_0() -> None:
    assert choose(("road", "sky", "car"), False, "car,road", None).kept == (0, 2)
    assert choose(("road", "sky", "car"), False, None, "road").kept == (1, 2)
    assert choose(("road", "sky"), False, None, "road").table[:3].tolist() == [255, 0, 255]


def test_a_class_that_was_dropped_may_be_absent(root: Path, mask_writer: Callable[..., None]) -> None:
    """What is not trained on is not missed: no warning, and no label of it is illegal."""
    mask_writer(root / "SegmentationClass/v0.png", np.full((24, 32), 3))
    for image_id in opened(root).ids("train"):
        mask = np.array(opened(root).mask(image_id))
        mask[mask == 3] = 1
        mask_writer(root / f"SegmentationClass/{image_id}.png", mask)
    whole, some = opened(root), opened(root, drop="cow")
    every = whole.ids("train") + whole.ids("val")
    assert ["cow (3)" in w.found for w in whole.warnings(every)] == [True]
    assert some.warnings(every) == []


def test_the_plan_takes_the_words_and_the_key_holds_them(root: Path, tmp_path: Path) -> None:
    words = ["methods=cam", "data=folder", f"data.root={root}", "backbone=shapes_vit", "tier=smoke", "gpus=0"]
    plans = [
        make_plan(parse([*words, f"store={tmp_path}", *more], Words, "sweep"))
        for more in ([], ["data.keep=cat,dog"], ["data.drop=cow"])
    ]
    assert [p.dataset.num_classes for p in plans] == [3, 2, 2]
    runs = [p.studies[0].run for p in plans]
    assert [r.options.get("keep") for r in runs] == [None, "cat,dog", None]
    assert runs[2].options["drop"] == "cow"
    assert isinstance(runs[1], RunConfig)
    keys = {p.resolve(p.studies[0].study, {}, 0).key for p in plans}
    assert len(keys) == 3
