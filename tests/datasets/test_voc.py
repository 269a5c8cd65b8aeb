"""VOC 2012: its layouts load whatever lies where, and every known mistake is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.datasets import open_dataset, voc
from harness.errors import BadInput, Problem


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniature's sizes as the official ones, so that the rules of the whole dataset hold for it."""
    monkeypatch.setattr(voc, "SIZES", miniatures.VOC_SIZES)
    monkeypatch.setattr(voc, "OTHER_LISTS", {len(miniatures.VOC_PLAIN_TRAIN): "VOC's own train list", 1464: "-"})


def refusal(root: Path, **words: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        open_dataset("voc", root=str(root), **words)
    return caught.value.problems


@pytest.mark.parametrize("below", ["", "VOC2012", ".."])
def test_the_devkit_loads_from_wherever_the_root_points(tmp_path: Path, official: None, below: str) -> None:
    dataset = open_dataset("voc", root=str(miniatures.voc(tmp_path) / below))
    assert dataset.name == "voc"
    assert dataset.family == "voc"
    assert (dataset.num_labels, dataset.num_classes, dataset.has_background) == (21, 20, True)
    assert dataset.splits() == {"train": True, "val": True, "test": False}
    assert dataset.ids("train") == miniatures.VOC_TRAIN
    assert dataset.ids("val") == miniatures.VOC_VAL
    assert dataset.ids("test") == miniatures.VOC_TEST
    dataset.check(dataset.ids("train") + dataset.ids("val") + dataset.ids("test"))
    for image_id in miniatures.VOC_TRAIN:
        mask = dataset.mask(image_id)
        border = 255 if image_id in miniatures.VOC_PLAIN_TRAIN else None
        assert np.array_equal(mask, miniatures.objects(miniatures.voc_labels(image_id), border))
        assert np.flatnonzero(dataset.tags(image_id)).tolist() == [c - 1 for c in miniatures.voc_labels(image_id)]
    assert dataset.image(miniatures.VOC_TEST[0]).shape == (24, 32, 3)
    with pytest.raises(BadInput, match="has no mask"):
        dataset.mask(miniatures.VOC_TEST[0])


def test_papers_score_training_images_of_voc_s_own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never SBD's, and none where the list is not there or is that of all."""
    monkeypatch.setattr(voc, "SIZES", miniatures.VOC_SIZES)
    root = miniatures.voc(tmp_path)
    found = open_dataset("voc", root=str(root), masks="SegmentationClassAug").quoted_train()
    assert found == tuple(i for i in miniatures.VOC_TRAIN if i in miniatures.VOC_PLAIN_TRAIN)
    assert 0 < len(found) < len(miniatures.VOC_TRAIN)
    monkeypatch.setattr(voc, "OWN_TRAIN", len(found) - 1)
    assert open_dataset("voc", root=str(root), masks="SegmentationClassAug").quoted_train() == ()
    (root / "VOC2012/ImageSets/Segmentation/train.txt").unlink()
    assert open_dataset("voc", root=str(root), masks="SegmentationClassAug").quoted_train() == ()


def test_agmms_folder_loads_with_its_own_lists(tmp_path: Path) -> None:
    dataset = open_dataset("voc", root=str(miniatures.agmm_voc(tmp_path)))
    assert dataset.ids("train") == miniatures.VOC_TRAIN
    assert dataset.splits() == {"train": True, "val": True}
    dataset.check(dataset.ids("train") + dataset.ids("val"))
    assert dataset.name == f"voc:{tmp_path.name}", "a part is told from the whole"
    first = miniatures.VOC_TRAIN[0]
    mask = miniatures.objects(miniatures.voc_labels(first))
    assert np.array_equal(dataset.weak(first, "points"), miniatures.sparse(mask, 8, 3))
    assert np.array_equal(dataset.weak(first, "scribbles"), miniatures.sparse(mask, 1, 3))
    assert dataset.weak_fingerprint(dataset.ids("train"), "points").startswith("files ")


def test_lists_in_every_style_of_the_field_read_alike(tmp_path: Path, official: None) -> None:
    root = miniatures.voc(tmp_path)
    lists = root / "VOC2012/ImageSets/Segmentation"
    for style in ("{0}", "{0}.jpg {0}.png", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", "{0} 1\r", "  {0}"):
        miniatures.save_list(lists / "train_aug.txt", [style.format(i) for i in miniatures.VOC_TRAIN])
        assert open_dataset("voc", root=str(root)).ids("train") == miniatures.VOC_TRAIN, style
    (lists / "train_aug.txt").rename(lists / "trainaug.txt")
    assert open_dataset("voc", root=str(root)).ids("train") == miniatures.VOC_TRAIN
    (root / "VOC2012/splits").mkdir()
    (lists / "trainaug.txt").rename(root / "VOC2012/splits/train.txt")
    assert open_dataset("voc", root=str(root)).ids("train") == miniatures.VOC_TRAIN, "by its size among two train.txt"


def test_plain_masks_are_named_as_the_mistake_they_are(tmp_path: Path, official: None) -> None:
    root = miniatures.voc(tmp_path)
    shutil.rmtree(root / "VOC2012/SegmentationClassAug")
    (problem,) = refusal(root)
    assert problem.where == str(root / "VOC2012/SegmentationClass")
    assert problem.found.startswith("expected 14 masks (10 train_aug + 4 val), found 8: that is plain VOC")
    assert "SegmentationClassAug.zip" in problem.fix
    assert "plain VOC" in refusal(root, masks="SegmentationClass")[0].found
    lists = root / "VOC2012/ImageSets/Segmentation"
    (lists / "train_aug.txt").unlink()
    (problem,) = refusal(root)
    assert problem.where == str(lists / "train.txt")
    assert "VOC's own train list" in problem.found
    assert "train_aug.txt" in problem.fix


def test_vocs_own_list_beside_the_merge_is_refused_whatever_its_size(tmp_path: Path) -> None:
    root = miniatures.voc(tmp_path)
    (root / "VOC2012/ImageSets/Segmentation/train_aug.txt").unlink()
    (problem,) = refusal(root)
    assert problem.found.startswith("4 ids for train: VOC's own train list, without SBD; 10,582 expected")


@pytest.mark.parametrize(("count", "known"), [(1464, "own train"), (2913, "trainval"), (11355, "SBD"), (10581, "ids")])
def test_wrong_lists_are_known_by_their_size(tmp_path: Path, count: int, known: str) -> None:
    root = miniatures.voc(tmp_path)
    lists = root / "VOC2012/ImageSets/Segmentation"
    miniatures.save_list(lists / "train_aug.txt", [f"{i:06d}" for i in range(count)])
    found = [p.found for p in refusal(root) if p.where.endswith("train_aug.txt")]
    assert len(found) == 1
    assert known in found[0]
    assert "10,582 expected" in found[0]


def test_a_small_part_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = miniatures.voc(tmp_path)
    assert data.main(["check", "data=voc", f"data.root={root}"]) == 0
    text = capsys.readouterr().out
    assert "10 of 10,582 ids: a part of train is used" in text
    assert "0 errors, 4 warnings; 30 files read" in text
    assert "  255 (ignore) covers" in text


def test_a_test_list_without_images_leaves_the_split_out(tmp_path: Path, official: None) -> None:
    root = miniatures.voc(tmp_path)
    for image_id in miniatures.VOC_TEST:
        (root / f"VOC2012/JPEGImages/{image_id}.jpg").unlink()
    found = voc.survey(root=str(root))
    assert not found.errors
    assert [w.found for w in found.warnings] == ["no image of test.txt is there: split left out"]
    assert found.opened().splits() == {"train": True, "val": True}


def test_a_palette_that_says_something_else_than_its_numbers_is_wrong(tmp_path: Path, official: None) -> None:
    root = miniatures.voc(tmp_path)
    path = root / f"VOC2012/SegmentationClassAug/{miniatures.VOC_TRAIN[0]}.png"
    colours = [voc.COLOURS[0], voc.COLOURS[15], voc.COLOURS[1], *voc.COLOURS[3:]]
    miniatures.save_mask(path, miniatures.objects((1, 2)), colours)
    dataset = open_dataset("voc", root=str(root))
    with pytest.raises(BadInput) as caught:
        dataset.check(dataset.ids("train"))
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.found == "wrong palette: label 1 has the colour of 15 (person), 2 has the colour of 1 (aeroplane)"
    for harmless in (
        [(9 * i % 256, i, i) for i in range(256)],
        list(voc.COLOURS[:21]),
        [(i, i, i) for i in range(256)],
    ):
        miniatures.save_mask(path, miniatures.objects((1, 2)), harmless)
        assert dataset.tags(miniatures.VOC_TRAIN[0])[:3].tolist() == [1, 1, 0]


def test_the_colour_table_is_vocs() -> None:
    assert voc.COLOURS[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert voc.COLOURS[15] == (192, 128, 128)
    assert voc.COLOURS[20] == (0, 64, 128)
    assert voc.COLOURS[255] == (224, 224, 192)
    assert len(set(voc.COLOURS)) == 256


def test_class_names_cannot_be_given(tmp_path: Path) -> None:
    assert refusal(miniatures.voc(tmp_path), classes="x.txt")[0].where == "data.classes"


def test_real_masks_read_as_they_are(real_data: Path) -> None:
    dataset = open_dataset("voc", root=str(real_data / "voc2012_gt_sample"))
    assert (len(dataset.ids("train")), len(dataset.ids("val"))) == (2, 6)
    dataset.check(dataset.ids("train") + dataset.ids("val"))
    for image_id in dataset.ids("train") + dataset.ids("val"):
        with Image.open(real_data / f"voc2012_gt_sample/SegmentationClass/{image_id}.png") as image:
            assert np.array_equal(dataset.mask(image_id), np.asarray(image))
            assert tuple(image.getpalette()[45:48]) == voc.COLOURS[15]
