"""Listed ids without a file: what lies there under another ending or name is told, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.datasets import open_dataset
from harness.datasets.disk.foreign_files import MASKS, find_files
from harness.datasets.tools import checking
from harness.errors import BadInput, Problem

Maker = Callable[..., Path]


def renamed(root: Path, folder: str, name: Callable[[Path], str]) -> Path:
    for path in sorted((root / folder).iterdir()):
        path.rename(path.with_name(name(path)))
    return root


def problems(root: Path, folder: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        open_dataset("folder", root=str(root))
    return [p for p in caught.value.problems if p.where == str(root / folder)]


@pytest.mark.parametrize("ending", [".jpg", ".JPEG"])
def test_jpeg_masks_are_told_as_what_they_are(voc_folder: Maker, ending: str) -> None:
    root = renamed(voc_folder(), "SegmentationClass", lambda p: p.stem + ending)
    problem = problems(root, "SegmentationClass")[0]
    assert f"; 17 files a0{ending}, a1{ending}, a10{ending}, ... are there instead" in problem.found
    assert problem.fix.startswith("masks must be PNG, JPEG changes labels")


@pytest.mark.parametrize("ending", [".tif", ".bmp", ".webp", ".npy"])
def test_images_of_other_formats_are_told_as_what_they_are(voc_folder: Maker, ending: str) -> None:
    root = renamed(voc_folder(), "JPEGImages", lambda p: p.stem + ending)
    (problem,) = problems(root, "JPEGImages")
    assert problem.found.endswith(f"; 17 files a0{ending}, a1{ending}, a10{ending}, ... are there instead")
    assert problem.fix == f"{ending} is not read: save the images as .png (or .jpg), 8 bits a channel"


@pytest.mark.parametrize("tail", ["_mask", ".jpg", "-labels", "_gt_v2"])
def test_masks_with_more_in_their_names_are_told(voc_folder: Maker, tail: str) -> None:
    root = renamed(voc_folder(), "SegmentationClass", lambda p: f"{p.stem}{tail}.png")
    problem = problems(root, "SegmentationClass")[0]
    assert f"; 12 files a0{tail}.png, a1" in problem.found
    assert problem.fix.startswith("name each file <id>.png")


@pytest.mark.parametrize(
    ("in_list", "on_disk"), [("b\u00e4r{}", "ba\u0308r{}"), ("im{}", "IM{}")], ids=["accents", "case"]
)
def test_names_that_are_spelt_otherwise_are_told(voc_folder: Maker, in_list: str, on_disk: str) -> None:
    root = voc_folder(lists={s: [in_list.format(f"{s}{n}") for n in range(4)] for s in ("train", "test")})
    renamed(root, "JPEGImages", lambda p: on_disk.format(p.stem.removeprefix(in_list.format(""))) + ".jpg")
    (problem,) = problems(root, "JPEGImages")
    assert problem.found.startswith("8 listed ids have no image")
    assert "8 files" in problem.found
    assert problem.fix.startswith("case, or the form of accents (NFC, NFD), differs")


@pytest.mark.parametrize("line", ["{} 1", '"{}"', "{},{}", "{};-1"])
def test_more_than_the_id_on_a_line_is_told(voc_folder: Maker, line: str) -> None:
    root = voc_folder()
    for path in (root / "ImageSets/Segmentation").iterdir():
        path.write_text("".join(line.format(i, i) + "\n" for i in path.read_text().split()))
    (problem,) = problems(root, "JPEGImages")
    assert problem.fix == "write the id alone on each line of the lists, without quotes and without anything behind it"


def test_files_of_another_program_are_looked_for_nearby(tmp_path: Path) -> None:
    def said(name: str) -> Problem:
        with pytest.raises(BadInput) as caught:
            find_files(tmp_path / name, ["a", "b"], MASKS, "preds")
        return caught.value.problems[0]

    for name in ("low/a.png", "low/b.png", "up/a.PNG", "up/b.PNG", "jpeg/a.jpg", "tail/a_pred.png", "in/deep/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in/deep/b.png").touch()
    for name in ("low", "up"):
        assert [p.stem for p in find_files(tmp_path / name, ["a", "b"], MASKS, "preds").values()] == ["a", "b"]
    assert said("jpeg").fix.startswith("masks must be PNG")
    assert said("tail").found.endswith("; 1 files a_pred.png are there instead")
    assert said("tail").fix == "name each file <id>.png"
    assert said("in").fix == f"preds={tmp_path}/in/deep"
    assert find_files(Path(said("in").fix.removeprefix("preds=")), ["a", "b"], MASKS, "preds").keys() == {"a", "b"}


def test_a_picture_of_another_format_is_named_where_most_files_are_there(voc_folder: Maker) -> None:
    root = voc_folder()
    for folder, old, new in (("JPEGImages", "a0.jpg", "a0.tif"), ("JPEGImages", "v1.jpg", "v1.webp")):
        (root / folder / old).rename(root / folder / new)
    (root / "SegmentationClass/a3.png").rename(root / "SegmentationClass/a3.jpg")
    (problem,) = problems(root, "JPEGImages")
    assert problem.found == "2 listed ids have no image: a0, v1; 2 files a0.tif, v1.webp are there instead"
    assert problem.fix == ".tif and .webp are not read: save the images as .png (or .jpg), 8 bits a channel"
    (problem,) = problems(root, "SegmentationClass")
    assert problem.found == "1 listed ids have no mask (train.txt): a3; 1 files a3.jpg are there instead"
    assert problem.fix.startswith("masks must be PNG, JPEG changes labels")


@pytest.mark.parametrize("beside", ["a0.txt", "a0_old.jpg", "A0.jpg"])
def test_where_most_files_are_there_the_others_are_missing(voc_folder: Maker, beside: str) -> None:
    root = voc_folder()
    (root / "JPEGImages/a0.jpg").rename(root / "JPEGImages" / beside)
    (problem,) = problems(root, "JPEGImages")
    assert problem.found == "1 listed ids have no image: a0"
    assert problem.fix == "add the files, or take the ids out of the lists"


def test_links_that_lead_nowhere_are_told_as_such(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).symlink_to(tmp_path / "moved" / name)
    with pytest.raises(BadInput) as caught:
        find_files(tmp_path, ["a", "b"], MASKS, "preds")
    (problem,) = caught.value.problems
    assert problem.found.endswith("has no file for 2 images: a, b; 2 files a.png, b.png are there instead")
    assert problem.fix.startswith("they are links that lead nowhere")


def report(root: Path) -> checking.Report:
    return checking.check(checking.survey("folder", root=str(root)))


@pytest.mark.parametrize(
    ("kind", "label", "found"),
    [
        ("scribbles", np.full((24, 32), 100), "label 100, but there are 3 classes"),
        ("scribbles", np.zeros((24, 32)), "100 % of the pixels are labelled, scribbles label 50 % at most"),
        ("points", np.full((9, 9), 255), "labels of 9x9 pixels, image of 32x24"),
    ],
)
def test_one_wrong_encoding_of_sparse_labels_is_told_once(
    voc_folder: Maker, mask_writer: Callable[..., None], kind: str, label: np.ndarray, found: str
) -> None:
    root = voc_folder()
    (root / "weak" / kind).mkdir(parents=True)
    for number in range(12):
        mask_writer(root / f"weak/{kind}/a{number}.png", label)
    (problem,) = report(root).errors
    assert problem.where == str(root / f"weak/{kind}/a0.png")
    assert problem.found == f"{found}; likewise 11 more: a1.png, a2.png, a3.png, a4.png, ..."


def test_wrong_strokes_and_points_are_told_once_too(voc_folder: Maker) -> None:
    root = voc_folder()
    (root / "scribbles").mkdir()
    for number in range(12):
        (root / f"scribbles/a{number}.xml").write_text("<annotation><polygon><tag>cat</tag></polygon></annotation>")
    dots = ", ".join(f'"a{n}": [{{"x": 90, "y": 1, "cls": 1}}]' for n in range(12))
    (root / "voc_whats_the_point.json").write_text("{" + dots + "}")
    told = [p.found for p in report(root).errors]
    assert told == [
        "1 points lie outside the 32x24 pixels of the image; likewise 11 more: voc_whats_the_point.json, a1, "
        "voc_whats_the_point.json, a2, voc_whats_the_point.json, a3, voc_whats_the_point.json, a4, ...",
        "a stroke without points; likewise 11 more: a1.xml, a2.xml, a3.xml, a4.xml, ...",
    ]


def test_a_tiff_by_another_ending_is_no_picture(voc_folder: Maker) -> None:
    root = voc_folder()
    Image.new("RGB", (32, 24)).save(root / "JPEGImages/a0.jpg", format="TIFF")
    assert report(root).errors[0].found == "a TIFF, neither JPEG nor PNG"
