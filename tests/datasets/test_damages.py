"""Every way in which data is broken: `check` names file, finding and fix, and no training starts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import miniatures as mini
import nibabel
import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.datasets import acdc, cityscapes, coco, voc
from harness.errors import BadInput
from harness.plan.plan import make_plan

VOC = "VOCdevkit/VOC2012"
LISTS = f"{VOC}/ImageSets/Segmentation"
IMAGE = f"{VOC}/JPEGImages/{mini.VOC_TRAIN[0]}.jpg"
MASK = f"{VOC}/SegmentationClassAug/{mini.VOC_TRAIN[0]}.png"
COCO_JSON = "annotations/instances_train2014.json"
COCO_MASK = f"SegmentationClass/train2014/{mini.coco_id(9, 'train')}.png"
CITY = "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png"
HEART = "ACDC/database/training/patient002/patient002_frame01"


@dataclass(frozen=True)
class Damage:
    """What is done to a miniature, and the file, finding and fix that must be named."""

    name: str
    dataset: str
    do: Callable[[Path], object]
    where: str
    found: str
    fix: str
    word: bool = False
    """Whether the command line is at fault: exit code 2."""


def cut(path: str, share: float = 0.6) -> Callable[[Path], object]:
    def do(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: int(share * len(content))])

    return do


def write(path: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes(content)


def remove(path: str) -> Callable[[Path], object]:
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


def append(path: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text((root / path).read_text() + text)


def mask(path: str, labels: np.ndarray, mode: str | None = None) -> Callable[[Path], object]:
    def do(root: Path) -> None:
        image = Image.fromarray(labels)
        (image.convert(mode) if mode else image).save(root / path)

    return do


def turned(root: Path) -> None:
    """A photo with an EXIF rotation whose mask was drawn on what a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = 6
    mini.save_picture(root / IMAGE, 0, exif=exif)
    mask(MASK, mini.objects((1, 2)).T)(root)


def absent(root: Path) -> None:
    """No training picture shows the last two classes; a validation picture does."""
    mini.save_mask(root / f"{VOC}/SegmentationClassAug/{mini.VOC_TRAIN[-1]}.png", mini.objects((1, 2)))
    mini.save_mask(root / f"{VOC}/SegmentationClassAug/{mini.VOC_VAL[0]}.png", mini.objects((1, 20)))


def other_palette(root: Path) -> None:
    mini.save_mask(root / MASK, mini.objects((1, 2)), [voc.COLOURS[0], *voc.COLOURS[2:]])


def link_out(root: Path) -> None:
    shutil.move(root / MASK, root / "elsewhere.png")
    os.symlink(root / "elsewhere.png", root / MASK)


def two_files(root: Path) -> None:
    shutil.copy(root / IMAGE, (root / IMAGE).with_suffix(".jpeg"))


def in_json(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def do(root: Path) -> None:
        content = json.loads((root / COCO_JSON).read_text())
        change(content)
        (root / COCO_JSON).write_text(json.dumps(content))

    return do


def volume(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    def do(root: Path) -> None:
        path = root / f"{HEART}{name}.nii.gz"
        values = np.asarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(change(values), np.eye(4)), path)

    return do


def label_ids(root: Path) -> None:
    shutil.copy(root / CITY.replace("labelTrainIds", "labelIds"), root / CITY)


PLAIN = mini.objects((1, 2))
WIDE = np.zeros((24, 40), np.uint8)
DAMAGES = [
    Damage("no root", "voc", remove("VOCdevkit"), "data.root", "there is no such folder", "data.root=<", word=True),
    Damage("no train list", "voc", remove(f"{LISTS}/train_aug.txt"), f"{LISTS}/train.txt", "own train", "train_aug"),
    Damage("no val list", "voc", remove(f"{LISTS}/val.txt"), f"{LISTS}/val.txt", "no such list", "VOCtrainval"),
    Damage("empty list", "voc", write(f"{LISTS}/val.txt", b"\n"), f"{LISTS}/val.txt", "list is empty", "one id a line"),
    Damage(
        "list cut off", "voc", cut(f"{LISTS}/train_aug.txt"), f"{LISTS}/train_aug.txt", "6 ids for train; 10", "write"
    ),
    Damage("double id", "voc", append(f"{LISTS}/val.txt", f"{mini.VOC_VAL[0]}\n"), "val.txt", "more than once", "once"),
    Damage(
        "two splits",
        "voc",
        append(f"{LISTS}/val.txt", f"{mini.VOC_TRAIN[0]}\n"),
        LISTS,
        "in more than one",
        "one split",
    ),
    Damage(
        "way out", "voc", append(f"{LISTS}/val.txt", "../../../etc/passwd\n"), "val.txt", "1 lines are no ids", "'..'"
    ),
    Damage("bytes as list", "voc", write(f"{LISTS}/val.txt", b"\xff\xfe\0"), "val.txt", "not UTF-8", "save it as"),
    Damage("no images", "voc", remove(f"{VOC}/JPEGImages"), "JPEGImages", "no such folder", "VOCtrainval"),
    Damage("image missing", "voc", remove(IMAGE), "JPEGImages", f"no image: {mini.VOC_TRAIN[0]}", "add the files"),
    Damage(
        "mask missing", "voc", remove(MASK), "SegmentationClassAug", "expected 14 masks", "SegmentationClassAug.zip"
    ),
    Damage("no merge", "voc", remove(f"{VOC}/SegmentationClassAug"), "SegmentationClass", "plain VOC", "SBD"),
    Damage("two files", "voc", two_files, "JPEGImages", "1 ids have two files", "keep one"),
    Damage("link out", "voc", link_out, "SegmentationClassAug", "links that leave it", "files themselves"),
    Damage("truncated JPEG", "voc", cut(IMAGE), IMAGE, "damaged or cut off", "download the file again"),
    Damage("empty JPEG", "voc", write(IMAGE, b""), IMAGE, "empty file", "download the file again"),
    Damage("text as JPEG", "voc", write(IMAGE, b"<html>404</html>"), IMAGE, "neither JPEG nor PNG", "again"),
    Damage("truncated PNG", "voc", cut(MASK), MASK, "damaged or cut off", "download the file again"),
    Damage("RGB mask", "voc", mask(MASK, PLAIN, "RGB"), MASK, "RGB mask", "one-channel 8-bit PNG"),
    Damage("RGBA mask", "voc", mask(MASK, PLAIN, "RGBA"), MASK, "RGBA mask", "one-channel 8-bit PNG"),
    Damage("16-bit mask", "voc", mask(MASK, PLAIN.astype(np.uint16)), MASK, "I;16 mask", "one-channel 8-bit PNG"),
    Damage("JPEG mask", "voc", lambda r: Image.fromarray(PLAIN).save(r / MASK, "JPEG"), MASK, "JPEG file", "8-bit PNG"),
    Damage("wrong size", "voc", mask(MASK, WIDE), MASK, "mask of 40x24 pixels, image of 32x24", "same size"),
    Damage("EXIF rotation", "voc", turned, MASK, "EXIF orientation 6 turns it", "exiftran"),
    Damage("label 22", "voc", mask(MASK, mini.objects((1, 22))), MASK, "label 22, but the 21 classes", "0..20"),
    Damage("wrong palette", "voc", other_palette, MASK, "wrong palette: label 1", "VOC's numbers"),
    Damage(
        "absent class", "voc", absent, "SegmentationClassAug", "no training image shows tvmonitor (20)", "masks are"
    ),
    Damage("JSON cut off", "coco", cut(COCO_JSON), COCO_JSON, "no whole JSON file", "annotations_trainval2014.zip"),
    Damage(
        "no JSON", "coco", remove(COCO_JSON), "SegmentationClass/train2014", "neither masks of train", "annotations"
    ),
    Damage(
        "RLE garbage",
        "coco",
        in_json(lambda c: c["annotations"][1]["segmentation"].update(counts="zz}~")),
        COCO_JSON,
        "image 9: run lengths in no text form",
        "annotations_trainval2014.zip",
    ),
    Damage(
        "other categories",
        "coco",
        in_json(lambda c: c["categories"].pop()),
        COCO_JSON,
        "categories are not COCO's 80",
        "instances files of COCO 2014",
    ),
    Damage(
        "size in JSON",
        "coco",
        in_json(lambda c: c["images"][1].update(height=30)),
        COCO_JSON,
        "run lengths for size [24, 32], the image has [30, 32]",
        "annotations_trainval2014.zip",
    ),
    Damage("category ids", "coco masks", mask(COCO_MASK, mini.objects((1, 90))), COCO_MASK, "label 90", "category ids"),
    Damage("mask cut off", "coco masks", cut(COCO_MASK), COCO_MASK, "damaged or cut off", "again"),
    Damage("labelIds", "cityscapes", label_ids, CITY, "label 19, 20", "labelIds (0..33)"),
    Damage("no city mask", "cityscapes", remove(CITY), "gtFine/train", "no mask (train): aachen_000000", "add the"),
    Damage("no gtFine", "cityscapes", remove("gtFine"), "gtFine/train", "no such folder", "gtFine_trainvaltest.zip"),
    Damage("instance ids", "cityscapes", mask(CITY, PLAIN.astype(np.uint16)), CITY, "I;16 mask", "8-bit PNG"),
    Damage(
        "NIfTI shape", "acdc", volume("_gt", lambda v: v[:, :, :2]), f"{HEART}_gt.nii.gz", "20x16x2", "same release"
    ),
    Damage("NIfTI cut off", "acdc", cut(f"{HEART}.nii.gz"), f"{HEART}.nii.gz", "damaged or cut off", "download"),
    Damage("NIfTI label 7", "acdc", volume("_gt", lambda v: v + 4), f"{HEART}_gt.nii.gz", "label 4, 5, 6, 7", "3 LV"),
    Damage(
        "half labels", "acdc", volume("_gt", lambda v: v / 2.0), f"{HEART}_gt.nii.gz", "no label numbers", "nearest"
    ),
    Damage("infinite", "acdc", volume("", lambda v: v / 0.0), f"{HEART}.nii.gz", "not finite", "copy or download"),
    Damage("film", "acdc", volume("", lambda v: np.stack([v, v], 3)), f"{HEART}.nii.gz", "20x16x3x2", "not the 4-D"),
    Damage("no labels", "acdc", remove(f"{HEART}_gt.nii.gz"), "ACDC/database", "no *_gt file", "unpack ACDC"),
]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "voc": mini.voc,
    "coco": mini.COCO_LAYOUTS["annotations"],
    "coco masks": mini.coco,
    "cityscapes": mini.cityscapes,
    "acdc": mini.acdc,
}


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every miniature counts as the whole dataset."""
    monkeypatch.setattr(voc, "SIZES", mini.VOC_SIZES)
    monkeypatch.setattr(coco, "SIZES", mini.COCO_SIZES)
    monkeypatch.setattr(cityscapes, "SIZES", mini.CITY_SIZES)
    monkeypatch.setattr(acdc, "SIZES", mini.ACDC_SIZES)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: f"{damage.dataset}-{damage.name}".replace(" ", "-"))
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_damage_is_named_and_no_training_starts(
    tmp_path: Path, official: None, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    MAKERS[damage.dataset](root)
    damage.do(root)
    place = root / "VOCdevkit" if damage.dataset == "voc" else root
    words = [f"data={damage.dataset.split()[0]}", f"data.root={place}"]
    with pytest.raises(BadInput) as caught:
        make_plan(parse(["methods=cam", *words], Words, "sweep", registry().names()))
    named = [p for p in caught.value.problems if p.where.endswith(damage.where)]
    assert any(damage.found in p.found and damage.fix in p.fix for p in named), str(caught.value)
    assert data.main(["check", *words]) == (2 if damage.word else 1)
    printed = capsys.readouterr()
    text = printed.err if damage.word else printed.out
    line = next(line for line in text.splitlines() if damage.where in line and damage.found in line)
    assert damage.word or line.startswith("error: ")
    assert damage.fix in text
    assert not list(root.glob("**/results")), "nothing was started"


@pytest.mark.parametrize("name", MAKERS)
def test_a_sound_miniature_passes_and_trains(tmp_path: Path, official: None, name: str) -> None:
    MAKERS[name](tmp_path)
    words = [f"data={name.split()[0]}", f"data.root={tmp_path}"]
    assert data.main(["check", *words]) == 0
    plan = make_plan(
        parse(
            ["methods=full", "backbone=shapes_vit", "tier=smoke", "protocol=fixed", *words],
            Words,
            "sweep",
            registry().names(),
        )
    )
    assert plan.studies
    assert plan.dataset.name == name.split()[0]


def test_all_damages_are_told_at_once(tmp_path: Path, official: None, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    mini.voc(root)
    chosen = ["double id", "image missing", "truncated PNG", "two files"]
    chosen_damages = [damage for damage in DAMAGES if damage.dataset == "voc" and damage.name in chosen]
    mini.save_picture(root / f"{VOC}/JPEGImages/{mini.VOC_TRAIN[1]}.jpeg", 1)
    for damage in chosen_damages:
        if damage.name != "two files":
            damage.do(root)
    mask(f"{VOC}/SegmentationClassAug/{mini.VOC_TRAIN[2]}.png", mini.objects((1, 22)))(root)
    mask(f"{VOC}/SegmentationClassAug/{mini.VOC_VAL[2]}.png", WIDE)(root)
    assert data.main(["check", "data=voc", f"data.root={root}"]) == 1
    text = capsys.readouterr().out
    for damage in chosen_damages:
        assert damage.found in text, damage.name
    assert "label 22" in text
    assert "mask of 40x24" in text
    assert "fingerprint none: masks are missing or wrong" in text
    assert "6 errors, 0 warnings" in text
