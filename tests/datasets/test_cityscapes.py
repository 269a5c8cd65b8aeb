"""Cityscapes: trainIds whichever file holds them, splits by folder or list, and every known mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from harness.datasets import cityscapes, open_dataset
from harness.errors import BadInput, Problem

TRAIN = tuple(sorted(i for ids in miniatures.CITY_TRAIN.values() for i in ids))


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cityscapes, "SIZES", miniatures.CITY_SIZES)


def refusal(root: Path, **words: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        open_dataset("cityscapes", root=str(root), **words)
    return caught.value.problems


def check_problems(root: Path) -> list[Problem]:
    dataset = open_dataset("cityscapes", root=str(root))
    with pytest.raises(BadInput) as caught:
        dataset.check(dataset.ids("train") + dataset.ids("val"))
    return caught.value.problems


@pytest.mark.parametrize("train_ids", [True, False])
@pytest.mark.parametrize("lists", [False, True])
def test_train_ids_come_from_either_file(tmp_path: Path, whole: None, train_ids: bool, lists: bool) -> None:
    miniatures.cityscapes(tmp_path / "cityscapes", train_ids, clicks=True, lists=lists)
    dataset = open_dataset("cityscapes", root=str(tmp_path))
    assert (dataset.name, dataset.family) == ("cityscapes", "cityscapes")
    assert (dataset.num_labels, dataset.num_classes, dataset.has_background) == (19, 19, False)
    assert dataset.splits() == {"train": True, "val": True, "test": False}
    assert sorted(dataset.ids("train")) == list(TRAIN)
    dataset.check(dataset.ids("train") + dataset.ids("val") + dataset.ids("test"))
    for image_id in (*TRAIN, *dataset.ids("val")):
        assert np.array_equal(dataset.mask(image_id), miniatures.city_mask(image_id))
    assert dataset.tags(TRAIN[0]).tolist() == [1.0] * 8 + [0.0] * 11
    assert dataset.fingerprint(TRAIN)[:8] == "a179e9e7"


def test_clicks_of_agmm_are_read_with_their_own_value_for_unlabelled(tmp_path: Path, whole: None) -> None:
    dataset = open_dataset("cityscapes", root=str(miniatures.cityscapes(tmp_path, clicks=True)))
    for kind, every in (("clicks20", 9), ("clicks50", 4), ("clicks100", 2)):
        clicks = dataset.weak(TRAIN[0], kind)
        assert np.array_equal(clicks, miniatures.sparse(miniatures.city_mask(TRAIN[0]), every, 3))
        assert not (clicks == 19).any(), "19 is no class, and unlabelled is not background"
        assert dataset.weak_fingerprint(dataset.ids("train"), kind).startswith("files ")


def test_the_table_of_ids_is_cityscapess() -> None:
    assert cityscapes.TRAIN_IDS[[7, 8, 11, 24, 26, 33]].tolist() == [0, 1, 2, 11, 13, 18]
    assert (cityscapes.TRAIN_IDS != 255).sum() == 19
    assert cityscapes.TRAIN_IDS[[0, 1, 9, 10, 29, 30, 34, 255]].tolist() == [255] * 8
    assert cityscapes.CLASSES[13] == "car"


def test_label_ids_under_the_name_of_train_ids_are_named(tmp_path: Path, whole: None) -> None:
    root = miniatures.cityscapes(tmp_path)
    folder = root / "gtFine/train/aachen"
    for image_id in miniatures.CITY_TRAIN["aachen"]:
        stem = folder / f"{image_id}_gtFine"
        shutil.copy(f"{stem}_labelIds.png", f"{stem}_labelTrainIds.png")
    (problem,) = check_problems(root)
    assert problem.where.endswith("aachen_000000_000019_gtFine_labelTrainIds.png")
    assert "labelIds (0..33)" in problem.fix
    assert "likewise 1 more" in problem.found


@pytest.mark.parametrize(
    ("path", "where", "found"),
    [
        ("leftImg8bit", "leftImg8bit/train", "there is no such folder"),
        ("gtFine", "gtFine/val", "there is no such folder"),
        ("leftImg8bit/val", "leftImg8bit/val", "there is no such folder"),
        (
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png",
            "gtFine/train",
            "1 listed ids have no mask (train): aachen_000000_000019",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, whole: None, path: str, where: str, found: str) -> None:
    root = miniatures.cityscapes(tmp_path)
    shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
    problem = next(p for p in refusal(root) if p.where == str(root / where))
    assert problem.found == found
    assert problem.fix


def test_a_list_of_images_that_are_not_there_is_refused(tmp_path: Path, whole: None) -> None:
    root = miniatures.cityscapes(tmp_path, lists=True)
    path = root / "splits/cityscapes/train.txt"
    path.write_text(path.read_text().replace("aachen_000000_000019", "aachen_000099_000019"))
    assert "1 listed ids have no image: aachen_000099_000019" in [p.found for p in refusal(root)]
    miniatures.save_list(path, ["../../etc/passwd", "/etc/passwd", "a b"])
    assert "3 lines are no ids" in refusal(root)[0].found


def test_sizes_tell_the_whole_from_a_part(tmp_path: Path) -> None:
    miniatures.cityscapes(tmp_path)
    found = cityscapes.survey(root=str(tmp_path))
    assert not found.errors
    assert "3 of 2,975 ids" in found.warnings[0].found
    assert found.opened().name == f"cityscapes:{tmp_path.name}"


def test_masks_and_classes_words_are_checked(tmp_path: Path) -> None:
    miniatures.cityscapes(tmp_path)
    assert refusal(tmp_path, masks="../gtFine")[0].where == "data.masks"
    assert refusal(tmp_path, classes="x")[0].where == "data.classes"
    assert "gtCoarse" in refusal(tmp_path, masks="gtCoarse")[0].where


@pytest.mark.parametrize("suffix", ["_labelTrainIds.png", "_labelIds.png"])
def test_coarse_annotations_are_read_by_their_own_names(tmp_path: Path, whole: None, suffix: str) -> None:
    root = miniatures.cityscapes(tmp_path)
    shutil.move(root / "gtFine", root / "gtCoarse")
    for path in sorted((root / "gtCoarse").rglob("*_gtFine_*")):
        coarse = path.with_name(path.name.replace("_gtFine_", "_gtCoarse_"))
        path.rename(coarse) if coarse.name.endswith(suffix) else path.unlink()
    dataset = open_dataset("cityscapes", root=str(root), masks="gtCoarse")
    dataset.check(dataset.ids("train") + dataset.ids("val"))
    assert dataset.mask_path(TRAIN[0]).name == f"{TRAIN[0]}_gtCoarse{suffix}"
    assert np.array_equal(dataset.mask(TRAIN[0]), miniatures.city_mask(TRAIN[0]))
    assert cityscapes.city_id(f"gtCoarse/train/aachen/{TRAIN[0]}_gtCoarse_labelIds.png") == TRAIN[0]
    folder = next((root / "gtCoarse/train").iterdir())
    next(folder.glob(f"*{suffix}")).unlink()
    assert "1 listed ids have no mask (train)" in refusal(root, masks="gtCoarse")[0].found


@pytest.mark.parametrize("suffix", ["labelTrainIds", "labelIds"])
def test_coarse_annotations_are_labels_and_void_is_unlabelled(tmp_path: Path, whole: None, suffix: str) -> None:
    """Beside fine masks; of either file; colours and instances that lie beside them are left alone."""
    root = miniatures.cityscapes(tmp_path)
    fine = {i: miniatures.city_mask(i) for i in TRAIN}
    for image_id, mask in fine.items():
        folder = root / "gtCoarse/train" / image_id.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = mask.copy()
        coarse[::2] = 255
        ids = np.append(np.array(cityscapes.LABEL_IDS, np.uint8), np.zeros(237, np.uint8))
        ids[255] = 0
        written = coarse if suffix == "labelTrainIds" else ids[coarse]
        for name, pixels in ((suffix, written), ("color", written), ("instanceIds", written)):
            Image.fromarray(pixels).save(folder / f"{image_id}_gtCoarse_{name}.png")
    dataset = open_dataset("cityscapes", root=str(root))
    found = dataset.weak(TRAIN[0], "coarse")
    assert (found[::2] == 255).all()
    assert np.array_equal(found[1::2], fine[TRAIN[0]][1::2])
    assert dataset.weak_fingerprint(TRAIN, "coarse").startswith("files ")
    assert "gtCoarse" in dataset.weak_source("coarse")
    bad = root / "gtCoarse/train/aachen" / f"{TRAIN[0]}_gtCoarse_{suffix}.png"
    if suffix == "labelTrainIds":
        Image.fromarray(np.full(fine[TRAIN[0]].shape, 26, np.uint8)).save(bad)
        with pytest.raises(BadInput, match="labels 26"):
            open_dataset("cityscapes", root=str(root)).weak_fingerprint(TRAIN, "coarse")


def test_without_coarse_annotations_nothing_stands_for_them(tmp_path: Path, whole: None) -> None:
    dataset = open_dataset("cityscapes", root=str(miniatures.cityscapes(tmp_path)))
    with pytest.raises(BadInput, match="no coarse annotations there"):
        dataset.weak_fingerprint(TRAIN, "coarse")
    for refuse in (lambda d: d.weak("train/000000", "coarse"), lambda d: d.weak_fingerprint((), "coarse")):
        with pytest.raises(BadInput, match="coarse are not derived from masks"):
            refuse(open_dataset("shapes"))
