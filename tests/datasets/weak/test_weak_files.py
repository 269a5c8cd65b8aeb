"""Sparse labels read from files, under the names and in the encodings that the field uses."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.tools.checking import check, survey
from harness.datasets.voc import CLASSES as VOC
from harness.datasets.weak.drawn import Stroke, draw, parse_scribbles, read_points
from harness.datasets.weak.finding import find, folders
from harness.errors import BadInput

Maker = Callable[..., Path]
SIZE = (24, 32)
TRAIN = [f"a{i}" for i in range(12)]


def sparse(unlabelled: int = IGNORE) -> np.ndarray:
    label = np.full(SIZE, unlabelled, np.uint8)
    label[8:10, 8:10], label[0, :6] = 1, 0
    return label


def put(folder: Path, name: str = "{}", unlabelled: int = IGNORE, ids: list[str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids or TRAIN:
        Image.fromarray(sparse(unlabelled)).save(folder / f"{name.format(image_id)}.png")


@pytest.mark.parametrize(
    ("kind", "folder", "name"),
    [
        ("points", "point/segcls", "{}"),
        ("points", "point", "{}"),
        ("points", "weak/points", "{}"),
        ("scribbles", "scribble/seginst", "{}"),
        ("scribbles", "Scribble", "{}"),
        ("clicks20", "20clicks", "{}_gtFine_labelTrainIds"),
        ("clicks50", "random_50clicks", "{}_gtFine_labelTrainIds"),
        ("clicks100", "100clicks", "{}_gtFine_labelTrainIds"),
        ("blocks", "block", "{}_leftImg8bit"),
    ],
)
@pytest.mark.parametrize("unlabelled", [IGNORE, 3])
def test_files_are_read_where_the_field_keeps_them(
    kind: str, folder: str, name: str, unlabelled: int, voc_folder: Maker
) -> None:
    """255 (TEL, GatedCRF) and the number of classes (AGMM) both say unlabelled; what is read is the same."""
    root = voc_folder()
    put(root / folder, name, unlabelled)
    dataset = open_dataset("folder", root=str(root))
    assert np.array_equal(dataset.weak("a3", kind), sparse())
    first = dataset.weak_fingerprint(tuple(TRAIN), kind)
    assert first.startswith("files ")
    other = "clicks20" if kind != "clicks20" else "points"
    assert dataset.weak_fingerprint(tuple(TRAIN), other).startswith("derived")
    assert check(survey("folder", root=str(root))).errors == ()
    put(root / folder, name, unlabelled, ids=["a0"])
    changed = sparse(unlabelled)
    changed[20, 20] = 2
    Image.fromarray(changed).save(root / folder / f"{name.format('a5')}.png")
    assert open_dataset("folder", root=str(root)).weak_fingerprint(tuple(TRAIN), kind) != first


def test_a_folder_of_ours_comes_first_and_data_weak_names_another(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    put(root / "point")
    put(root / "weak/points")
    (root / "weak/points/a0.png").write_bytes(b"")
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere / "weak/points")
    with pytest.raises(BadInput, match=r"weak/points/a0\.png: empty file"):
        open_dataset("folder", root=str(root)).weak("a0", "points")
    dataset = open_dataset("folder", root=str(root), options={"weak": str(elsewhere)})
    assert np.array_equal(dataset.weak("a0", "points"), sparse())
    with pytest.raises(BadInput, match=r"data\.weak: there is no .*nowhere and no .*mini/nowhere"):
        open_dataset("folder", root=str(root), options={"weak": "nowhere"})
    with pytest.raises(BadInput, match="makes its own labels"):
        open_dataset("shapes", options={"weak": str(elsewhere)})
    assert folders("clicks7") == ("weak/clicks7", "7clicks", "random_7clicks", "clicks7")


def save(path: Path, label: np.ndarray) -> None:
    Image.fromarray(label).save(path)


def bordered() -> np.ndarray:
    """A full mask as VOC has them: 0 elsewhere, an object, 255 around it."""
    label = np.zeros(SIZE, np.uint8)
    label[4:14, 5:20], label[5:13, 6:19] = IGNORE, 1
    return label


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "no labels for 1 images: a4"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:40]), "damaged"),
    "empty": (lambda p: p.write_bytes(b""), "empty file"),
    "text": (lambda p: p.write_text("x" * 50), "neither JPEG nor PNG"),
    "colours": (lambda p: save(p, np.zeros((*SIZE, 3), np.uint8)), "RGB mask"),
    "another size": (lambda p: save(p, sparse()[:, ::2]), "labels of 16x24 pixels, image of 32x24"),
    "class 9": (lambda p: save(p, np.where(sparse() == 1, 9, sparse()).astype(np.uint8)), "label 9"),
    "zero elsewhere": (lambda p: save(p, np.where(sparse() == IGNORE, 0, sparse()).astype(np.uint8)), "100 % of the"),
    "zero and a border": (lambda p: save(p, bordered()), "94 % of the pixels are labelled, points label 10 % at most"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_and_training_does_not_start(damage: str, voc_folder: Maker) -> None:
    root = voc_folder()
    put(root / "point")
    spoil, text = DAMAGES[damage]
    spoil(root / "point" / "a4.png")
    (root / "point" / "a7.png").write_bytes(b"junk")
    dataset = open_dataset("folder", root=str(root))
    with pytest.raises(BadInput) as caught:
        dataset.weak_fingerprint(tuple(TRAIN), "points")
    assert text in str(caught.value)
    assert "a7" in str(caught.value), "all problems at once"
    report = check(survey("folder", root=str(root)))
    told = report.warnings if damage == "missing" else report.errors
    assert any(text in problem.found for problem in told)


def test_links_that_leave_the_folder_are_refused(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    put(root / "point")
    secret = tmp_path / "secret.png"
    put(tmp_path, "secret", ids=["x"])
    os.remove(root / "point" / "a1.png")
    (root / "point" / "a1.png").symlink_to(secret)
    with pytest.raises(BadInput, match="links that leave it"):
        open_dataset("folder", root=str(root)).weak("a1", "points")


XML = """<annotation><size><width>{w}</width><height>{h}</height></size>{body}</annotation>"""
STROKES = (
    "<polygon><tag>plane</tag><point><X>4</X><Y>5</Y></point><point><X>20</X><Y>5</Y></point></polygon>"
    "<polygon><tag>background</tag><point><X>10</X><Y>20</Y></point></polygon>"
)


def xml(body: str = STROKES, size: tuple[int, int] = SIZE) -> bytes:
    return XML.format(w=size[1], h=size[0], body=body).encode()


def test_scribblesup_by_hand() -> None:
    """A level line of three pixels and a disc; `plane` is VOC's aeroplane (agmm.md 7)."""
    strokes = parse_scribbles(xml(), "a.xml", VOC, SIZE)
    assert strokes == [Stroke(1, ((4, 5), (20, 5))), Stroke(0, ((10, 20),))]
    label = draw(strokes, SIZE)
    assert set(np.unique(label)) == {0, 1, IGNORE}
    assert (label[4:7, 4:21] == 1).all()
    assert (label[8:18] == IGNORE).all()
    assert label[20, 10] == 0
    assert parse_scribbles(xml(""), "a.xml", VOC, SIZE) == [], "an image without strokes has no labelled pixel"
    dots = draw([Stroke(2, ((15, 12),))], SIZE)
    assert 9 <= (dots == 2).sum() <= 16, "a disc of diameter 3, about 12 pixels (agmm.md 7)"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (xml()[:-20], "damaged XML"),
        (xml(size=(9, 9)), "for an image of 9x9 pixels, it has 32x24"),
        (xml(STROKES.replace("plane", "zebra")), "class 'zebra'"),
        (xml(STROKES.replace("<X>4", "<X>four")), "a coordinate 'four'"),
        (xml(STROKES.replace("<X>4", "<X>nan")), "a coordinate 'nan'"),
        (xml("<polygon><tag>cat</tag></polygon>"), "a stroke without points"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]>' + xml(), "defines entities"),
        (b"\x00\xff", "damaged XML"),
        (b"", "damaged XML"),
    ],
)
def test_bad_scribbles_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(BadInput, match=r"a\.xml") as caught:
        parse_scribbles(data, "a.xml", VOC, SIZE)
    assert text in str(caught.value)


def test_scribbles_come_from_a_folder_or_a_zip(tmp_path: Path) -> None:
    (tmp_path / "one/scribbles").mkdir(parents=True)
    (tmp_path / "one/scribbles/2007_1.xml").write_bytes(xml())
    (tmp_path / "two").mkdir()
    with zipfile.ZipFile(tmp_path / "two/voc_scribbles.zip", "w") as archive:
        archive.writestr("2007_1.xml", xml())
        archive.writestr("2007_2.xml", b"<annotation>")
    for name in ("one", "two"):
        files = find(tmp_path / name, "scribbles", VOC)
        assert files is not None
        assert files.covers("2007_1")
        assert not files.covers("2007_9")
        assert np.array_equal(files.read("2007_1", SIZE), draw(parse_scribbles(xml(), "", VOC), SIZE))
    assert files is not None
    with pytest.raises(BadInput, match=r"voc_scribbles.zip/2007_2.xml: damaged XML"):
        files.read("2007_2", SIZE)
    again = pickle.loads(pickle.dumps(files))
    assert again.files == files.files
    assert np.array_equal(again.read("2007_1", SIZE), files.read("2007_1", SIZE))
    (tmp_path / "two/voc_scribbles.zip").write_bytes(b"PK junk")
    with pytest.raises(BadInput, match="no zip archive"):
        find(tmp_path / "two", "scribbles", VOC)
    assert find(tmp_path, "scribbles", VOC) is None


def test_points_of_two_json_files(tmp_path: Path) -> None:
    """What's the Point and GatedCRF's background points: every rank is used."""
    foreground = {"a": [{"x": 3, "y": 4, "cls": 7, "rank": 1}, {"x": 20, "y": 10, "cls": 7, "rank": 2}], "b": []}
    background = {"a": [{"x": 10.5, "y": 18, "cls": 0}], "b": [{"x": 1, "y": 1, "cls": 0}]}
    (tmp_path / "voc_whats_the_point.json").write_text(json.dumps(foreground))
    (tmp_path / "voc_whats_the_point_bg_from_scribbles.json").write_text(json.dumps(background))
    files = find(tmp_path, "points", VOC)
    assert files is not None
    label = files.read("a", SIZE)
    assert [label[4, 3], label[10, 20], label[18, 10], label[0, 31]] == [7, 7, 0, IGNORE]
    with pytest.raises(BadInput, match="a: 2 points lie outside the 4x5 pixels of the image"):
        files.read("a", (5, 4))
    for text, found in (
        ("[1]", "no JSON object"),
        ('{"a": [{"x": 1}]}', "none: a"),
        ("{", "no JSON"),
        ('{"a": 3}', "a"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(BadInput, match=r"bad\.json") as caught:
            read_points(tmp_path / "bad.json", 21)
        assert found in str(caught.value)
    (tmp_path / "bad.json").write_text('{"a": [{"x": 1, "y": 1, "cls": 21}], "b": [{"x": 1, "y": 1e9, "cls": 2}]}')
    with pytest.raises(BadInput, match="2 images have points that are none: a, b"):
        read_points(tmp_path / "bad.json", 21)


@pytest.mark.parametrize("form", ["xml", "json"])
def test_random_bytes_raise_our_errors_alone(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good = xml() if form == "xml" else b'{"a": [{"x": 1, "y": 1, "cls": 2}], "b": []}'
    path = tmp_path / f"f.{form}"
    for i in range(int(os.environ.get("WSSS_FUZZ", "500"))):
        data = bytearray(good if i % 2 else rng.integers(0, 256, int(rng.integers(80)), dtype=np.uint8).tobytes())
        for at in rng.integers(max(1, len(data)), size=3 if i % 2 and data else 0):
            data[at] = int(rng.integers(32, 127))
        path.write_bytes(data)
        assert answered(form, path)


def answered(form: str, path: Path) -> bool:
    try:
        return bool(
            parse_scribbles(path.read_bytes(), "f", VOC) if form == "xml" else read_points(path, 21) is not None
        )
    except BadInput:
        return True


def test_the_real_scribbles_are_read_as_they_are(real_data: Path) -> None:
    dataset = open_dataset("folder", root=str(real_data / "voc2012_gt_sample"))
    ids = ("2007_000032", "2007_000033")  # the second one is of val
    assert dataset.weak_fingerprint(ids, "scribbles").startswith("files ")
    for image_id in ids:
        label, mask = dataset.weak(image_id, "scribbles"), dataset.mask(image_id)
        agree = label[(label != IGNORE) & (mask != IGNORE)] == mask[(label != IGNORE) & (mask != IGNORE)]
        assert agree.mean() > 0.95
