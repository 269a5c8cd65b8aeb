"""Where sparse labels come from: what is named or lies under a known name is used or refused, never passed over."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.io import reading
from harness.datasets.tools.checking import check, survey
from harness.datasets.tools.judging import label_source
from harness.datasets.voc import CLASSES as VOC
from harness.datasets.weak.files import JsonPoints, XmlScribbles
from harness.datasets.weak.finding import find, kinds_below
from harness.errors import BadInput, Problem

Maker = Callable[..., Path]
SIZE = (24, 32)
TRAIN = tuple(f"a{i}" for i in range(12))
KNOWN = ("points", "scribbles", "clicks20", "clicks50", "clicks100", "blocks")


def label_with(pixels: int) -> np.ndarray:
    label = np.full(SIZE, IGNORE, np.uint8)
    label.ravel()[:pixels] = 1
    return label


def put(folder: Path, ids: tuple[str, ...] = TRAIN, pixels: int = 9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        Image.fromarray(label_with(pixels)).save(folder / f"{image_id}.png")
    return folder


def refusal(root: Path, weak: Path | str | None, kind: str) -> Problem:
    options = {} if weak is None else {"weak": str(weak)}

    def opened() -> None:
        open_dataset("folder", root=str(root), options=options).weak_fingerprint(TRAIN, kind)

    with pytest.raises(BadInput) as caught:
        opened()
    return caught.value.problems[0]


def test_an_empty_data_weak_is_refused(voc_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, empty = voc_folder(), tmp_path / "empty"
    empty.mkdir()
    problem = refusal(root, empty, "points")
    assert (problem.where, problem.found) == ("data.weak", f"no sparse labels in {empty}: it holds nothing")
    assert "weak/points, point/segcls, point, points" in problem.fix
    assert data.main(["check", "data=folder", f"data.root={root}", f"data.weak={empty}"]) == 2
    assert "data.weak: no sparse labels in" in capsys.readouterr().err


def test_a_data_weak_that_is_too_deep_is_told_where_to_point(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    put(tmp_path / "labels/weak/points")
    problem = refusal(root, tmp_path / "labels/weak/points", "points")
    assert problem.where == "data.weak"
    assert problem.found.endswith("labels/weak/points: it holds a0.png, a1.png, a10.png, ...")
    assert problem.fix == f"data.weak={tmp_path / 'labels/weak'}"
    dataset = open_dataset("folder", root=str(root), options={"weak": str(tmp_path / "labels/weak")})
    assert (dataset.weak("a0", "points") != IGNORE).sum() == 9


def test_another_kind_below_data_weak_is_not_taken_for_none(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    put(tmp_path / "labels/weak/points")
    put(tmp_path / "labels/weak/clicks7", pixels=7)
    problem = refusal(root, tmp_path / "labels", "scribbles")
    assert (problem.where, problem.found) == (
        "data.weak",
        f"no scribbles in {tmp_path / 'labels'}: it holds labels of points, clicks7 alone",
    )
    dataset = open_dataset("folder", root=str(root), options={"weak": str(tmp_path / "labels")})
    for kind in ("points", "clicks7"):
        assert dataset.weak_fingerprint(TRAIN, kind).startswith("files ")
    report = check(survey("folder", root=str(root), options={"weak": str(tmp_path / "labels")}))
    assert (report.errors, report.warnings) == ((), ())
    assert report.sources["points"] == f"files at {tmp_path / 'labels/weak/points'}, 12 of 12 training images"
    assert report.sources["scribbles"] == f"none in {tmp_path / 'labels'}"


@pytest.mark.parametrize(
    ("kind", "folder", "content"),
    [
        ("points", "point/segcls", "readme.txt"),
        ("scribbles", "weak/scribbles", "a0.jpg"),
        ("clicks20", "20clicks", None),
        ("points", "weak/points", "contact-sheet.png"),
        ("points", "points", "a0.xml"),
    ],
)
def test_a_known_folder_without_a_usable_file_is_an_error(
    kind: str, folder: str, content: str | None, voc_folder: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    root = voc_folder()
    (root / folder).mkdir(parents=True)
    if content:
        (root / folder / content).write_bytes(b"")
    problem = refusal(root, None, kind)
    assert problem.where == str(root / folder)
    assert f"no file of {kind}" in problem.found
    assert f"it holds {content or 'nothing'}" in problem.found
    assert data.main(["check", "data=folder", f"data.root={root}"]) == 1
    assert f"error: {root / folder}: no file of {kind}" in capsys.readouterr().out
    assert open_dataset("folder", root=str(root)).weak_fingerprint(TRAIN, "blocks") == "derived 1"


def test_files_of_no_training_image_are_an_error_of_check(voc_folder: Maker) -> None:
    root = voc_folder()
    put(root / "point", ids=("x1", "x2"))
    report = check(survey("folder", root=str(root)))
    assert [(p.where, p.found[:24]) for p in report.errors] == [(str(root / "point"), "no labels for 12 images:")]


def test_clicks_in_folders_of_cities_are_read(tmp_path: Path) -> None:
    root = miniatures.cityscapes(tmp_path, clicks=True)
    flat = open_dataset("cityscapes", root=str(root))
    ids = flat.ids("train")
    first = flat.weak_fingerprint(ids, "clicks20")
    for path in list((root / "20clicks").iterdir()):
        city = path.parent / path.name.partition("_")[0]
        city.mkdir(exist_ok=True)
        path.rename(city / path.name)
    assert open_dataset("cityscapes", root=str(root)).weak_fingerprint(ids, "clicks20") == first
    twice = root / "20clicks/bochum" / f"{ids[0]}_gtFine_labelTrainIds.png"
    twice.write_bytes(b"")
    with pytest.raises(BadInput, match=rf"20clicks: {ids[0]} has two files: aachen/"):
        open_dataset("cityscapes", root=str(root)).weak_fingerprint(ids, "clicks20")


def test_check_says_where_each_kind_comes_from(voc_folder: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder()
    put(root / "scribble/seginst", ids=TRAIN[:11])
    assert data.main(["check", "data=folder", f"data.root={root}"]) == 0
    text = capsys.readouterr().out
    assert "  points: derived from the masks\n" in text
    assert f"  scribbles: files at {root / 'scribble/seginst'}, 11 of 12 training images\n" in text
    assert "  clicks20, clicks50, clicks100, blocks: derived from the masks\n" in text
    dataset = open_dataset("folder", root=str(root))
    assert label_source(dataset, "points") == label_source(dataset, "tags") == "derived from the masks"
    assert label_source(dataset, "scribbles") == f"files at {root / 'scribble/seginst'}"
    assert label_source(dataset, "masks") == "the masks"
    assert label_source(open_dataset("shapes"), "points") == "made with the pictures"


def test_data_weak_starts_in_the_current_folder(
    voc_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, here = voc_folder(), tmp_path / "here"
    put(here / "labels/weak/points", pixels=4)
    monkeypatch.chdir(here)
    dataset = open_dataset("folder", root=str(root), options={"weak": "labels"})
    assert (dataset.weak("a0", "points") != IGNORE).sum() == 4
    put(root / "labels/weak/points", pixels=6)
    problem = refusal(root, "labels", "points")
    assert (problem.where, problem.found) == ("data.weak", f"'labels' lies here and in {root}")
    assert problem.fix == f"write data.weak={here / 'labels'} or data.weak={root / 'labels'}"
    monkeypatch.chdir(root)
    dataset = open_dataset("folder", root=str(root), options={"weak": "labels"})
    assert (dataset.weak("a0", "points") != IGNORE).sum() == 6


@pytest.mark.parametrize(
    ("kind", "folder", "share", "fits"),
    [
        ("points", "point", 0.09, True),
        ("points", "point", 0.11, False),
        ("clicks20", "20clicks", 0.11, False),
        ("clicks100", "100clicks", 0.13, True),  # 100 clicks of 768 pixels
        ("scribbles", "scribble", 0.49, True),
        ("scribbles", "scribble", 0.51, False),
        ("blocks", "block", 0.6, True),
        ("blocks", "block", 0.8, False),
    ],
)
def test_more_labelled_pixels_than_a_kind_can_have_are_refused(
    kind: str, folder: str, share: float, fits: bool, voc_folder: Maker
) -> None:
    root = voc_folder()
    put(root / folder, pixels=int(share * 24 * 32))
    if fits:
        assert open_dataset("folder", root=str(root)).weak_fingerprint(TRAIN, kind).startswith("files ")
    else:
        problem = refusal(root, None, kind)
        assert f"{100 * share:.0f} % of the pixels are labelled, {kind} label" in problem.found
        assert "(0 is a label, not nothing)" in problem.fix


def test_images_without_a_labelled_pixel_are_a_warning_alone(voc_folder: Maker) -> None:
    root = voc_folder()
    put(root / "point")
    for image_id in ("a2", "a7"):
        Image.fromarray(label_with(0)).save(root / f"point/{image_id}.png")
    assert open_dataset("folder", root=str(root)).weak_fingerprint(TRAIN, "points").startswith("files ")
    report = check(survey("folder", root=str(root)))
    assert report.errors == ()
    assert [p.found for p in report.warnings] == ["2 training images have no labelled pixel: a2, a7"]
    put(root / "point", pixels=0)
    problem = refusal(root, None, "points")
    assert problem.found == "none of 12 images has a labelled pixel"


@pytest.mark.parametrize("unlabelled", ["its own colour", "255"])
def test_palettes_of_each_files_own_are_told_of_sparse_labels(voc_folder: Maker, unlabelled: str) -> None:
    """As an editor saves scribbles: the numbers of a file are places in its own list of colours."""
    root = voc_folder()
    (root / "scribble").mkdir()
    ink = [(255, 255, 255), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
    for n, image_id in enumerate(TRAIN):
        label = np.full(SIZE, 0 if unlabelled == "its own colour" else IGNORE, np.uint8)
        label[2, :9], label[5, :9] = 1, 2
        image = Image.fromarray(label)
        order = [ink[0], *np.roll(ink[1:], n, axis=0).ravel().tolist()]
        image.putpalette([*ink[0], *order[1:], *[0] * (768 - 12)])
        image.save(root / f"scribble/{image_id}.png")
    problem = refusal(root, None, "scribbles")
    assert problem.found.startswith("label 1 has 3 colours, label 2 has 3 colours over 12 files")
    assert "each file has a palette of its own" in problem.found
    assert check(survey("folder", root=str(root))).errors == (problem,)


def test_a_point_json_may_leave_few_images_out(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(40)]
    path = tmp_path / "voc_whats_the_point.json"
    for left_out, fits in ((2, True), (3, False)):
        entries = {i: [{"x": 3, "y": 4, "cls": 7}] for i in ids[left_out:]}
        entries[ids[-1]] = []
        path.write_text(json.dumps(entries))
        files = find(tmp_path, "points", VOC)
        assert isinstance(files, JsonPoints)
        if fits:
            read = files.survey(ids, lambda _: SIZE)
            assert (read.problems, read.blank) == ([], ["i0", "i1", "i39"])
            assert len(files.check(ids, lambda _: SIZE)) == 64
            assert (files.read("i0", SIZE) == IGNORE).all()
        else:
            with pytest.raises(BadInput, match="no labels for 3 images: i0, i1, i2"):
                files.check(ids, lambda _: SIZE)


@pytest.mark.parametrize("name", ["voc_whats_the_point.json", "voc_scribbles.zip"])
def test_single_files_that_are_links_out_are_refused(name: str, voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (root / name).symlink_to(secret)
    problem = refusal(root, None, "points" if name.endswith("json") else "scribbles")
    assert (problem.where, problem.found) == (str(root / name), "a link that leaves its folder")


SCRIBBLE = b"<annotation><polygon><tag>cat</tag><point><X>3</X><Y>4</Y></point></polygon></annotation>"


def test_an_archive_is_opened_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"i{n}" for n in range(60)]
    with zipfile.ZipFile(tmp_path / "voc_scribbles.zip", "w") as archive:
        for image_id in ids:
            archive.writestr(f"all/{image_id}.XML", SCRIBBLE)
    files = find(tmp_path, "scribbles", VOC)
    assert isinstance(files, XmlScribbles)
    opened = []
    real = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda *words: opened.append(words) or real(*words))
    for image_id in reversed(ids):
        files.read(image_id, SIZE)
    assert len(opened) == 1
    threads = files.check(ids, lambda _: SIZE)
    monkeypatch.setattr(reading, "PROCESSES_FROM", 1)
    assert files.check(ids, lambda _: SIZE) == threads
    assert len(opened) == 1, "those of other processes are their own"
    (tmp_path / "empty").mkdir()
    with real(tmp_path / "empty/voc_scribbles.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(BadInput, match="no XML file in the archive"):
        find(tmp_path / "empty", "scribbles", VOC)


def test_reading_labels_shows_a_bar(
    voc_folder: Maker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = voc_folder()
    put(root / "point")
    monkeypatch.setattr(reading, "BAR_FROM", 12)
    open_dataset("folder", root=str(root)).weak_fingerprint(TRAIN, "points")
    assert "reading points: 12 of 12" in capsys.readouterr().err


def test_kinds_below_a_folder(tmp_path: Path) -> None:
    assert kinds_below(tmp_path) == []
    for name in ("random_30clicks", "20clicks", "weak/blocks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "voc_scribbles.zip").write_bytes(b"")
    assert kinds_below(tmp_path) == ["scribbles", "clicks20", "blocks", "clicks30"]
