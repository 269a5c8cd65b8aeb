"""Image-level labels from XML, JSON and pickled dicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import data
from harness.datasets import open_dataset
from harness.datasets.disk.tag_files import read_tags, write_tags
from harness.errors import BadInput

CLASSES = ("aeroplane", "cat", "dog")
IDS = ("2007_000032", "2007_000033", "2008_000001")
COCO = ("COCO_train2014_000000000009", "COCO_train2014_000000000042")


def lists(tags: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {k: v.tolist() for k, v in tags.items()}


def test_json_in_its_forms(tmp_path: Path) -> None:
    path = tmp_path / "tags.json"
    wanted = {"2007_000032": [1, 0, 1], "2007_000033": [0, 1, 0]}
    for content in (
        {"2007_000032": ["plane", "dog"], "2007_000033": ["cat"], "elsewhere": ["cat"]},
        {"2007_000032.jpg": [1, 0, 1], "2007_000033.jpg": [0, 1, 0]},
        {"JPEGImages/2007_000032.jpg": [1, 1, 0, 1], "2007_000033": [1, 0, 1, 0]},
        {"classes": CLASSES, "tags": {"2007_000032": ["dog", "aeroplane"], "2007_000033": ["cat"]}},
    ):
        path.write_text(json.dumps(content))
        assert lists(read_tags(path, CLASSES, IDS)) == wanted
    tags = read_tags(path, CLASSES, IDS)
    write_tags(path, tags, CLASSES)
    first = path.read_bytes()
    assert lists(read_tags(path, CLASSES, IDS)) == wanted
    write_tags(path, dict(reversed(tags.items())), CLASSES)
    assert path.read_bytes() == first


def test_pickled_dicts_of_the_field(tmp_path: Path) -> None:
    """Text keys (ToCo, AFA), IRN's whole numbers for VOC and COCO."""
    path = tmp_path / "cls_labels.npy"
    np.save(path, {"2007_000032": np.array([1, 0, 1], "f4"), "2008_000001": np.array([0, 0, 1], "f4")})
    assert lists(read_tags(path, CLASSES, IDS, pickles=True)) == {"2007_000032": [1, 0, 1], "2008_000001": [0, 0, 1]}
    np.save(path, {2007000033: np.array([0, 1, 0], "f4")})
    assert lists(read_tags(path, CLASSES, IDS, pickles=True)) == {"2007_000033": [0, 1, 0]}
    np.save(path, {9: np.array([0, 1, 0], "f4"), 42: np.array([1, 0, 0])})
    assert lists(read_tags(path, CLASSES, COCO, pickles=True)) == {COCO[0]: [0, 1, 0], COCO[1]: [1, 0, 0]}
    with pytest.raises(BadInput, match="import-tags alone"):
        read_tags(path, CLASSES, IDS)


def test_a_number_is_only_what_the_field_writes_for_voc_and_coco(tmp_path: Path) -> None:
    path = tmp_path / "tags.json"
    path.write_text(json.dumps({"110": [1, 0, 0], "a": [0, 1, 0]}))
    assert lists(read_tags(path, CLASSES, ("1_10", "11_0", "a"))) == {"a": [0, 1, 0]}
    path.write_text(json.dumps({"7": [1, 0, 0], "2007000032": [0, 1, 0]}))
    assert lists(read_tags(path, CLASSES, ("0007", *IDS))) == {"0007": [1, 0, 0], "2007_000032": [0, 1, 0]}
    with pytest.raises(BadInput, match="1 keys mean several images: '7' may be 0007 or 00007"):
        read_tags(path, CLASSES, ("0007", "00007"))
    assert lists(read_tags(path, CLASSES, ("7", "007"))) == {"7": [1, 0, 0]}
    path.write_text(json.dumps({"7.jpg": [1, 0, 0], "7": [0, 1, 0]}))
    with pytest.raises(BadInput, match="1 images have two keys: 7 "):
        read_tags(path, CLASSES, ("7",))


def test_xml_of_coco_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "000000000009.xml").write_text(annotation("dog"))
    (tmp_path / "42.xml").write_text(annotation("cat"))
    (tmp_path / "43.xml").write_text(annotation("cat"))
    assert lists(read_tags(tmp_path, CLASSES, COCO)) == {COCO[0]: [0, 0, 1], COCO[1]: [0, 1, 0]}
    (tmp_path / f"{COCO[0]}.xml").write_text(annotation("dog"))
    with pytest.raises(BadInput, match="1 ids have two files"):
        read_tags(tmp_path, CLASSES, COCO)


def annotation(*names: str) -> str:
    return "<annotation>" + "".join(f"<object><name>{n}</name></object>" for n in names) + "</annotation>"


def test_voc_annotations(tmp_path: Path) -> None:
    (tmp_path / "2007_000032.xml").write_text(annotation("dog", "cat", "dog"))
    (tmp_path / "2007_000033.xml").write_text(annotation())
    (tmp_path / "other.xml").write_text("junk")
    assert lists(read_tags(tmp_path, CLASSES, IDS)) == {"2007_000032": [0, 1, 1], "2007_000033": [0, 0, 0]}
    (tmp_path / "2007_000033.xml").write_text(annotation("zebra"))
    (tmp_path / "2008_000001.xml").write_text("<annotation>")
    with pytest.raises(BadInput) as caught:
        read_tags(tmp_path, CLASSES, IDS)
    assert "zebra" in str(caught.value)
    assert "2008_000001.xml: damaged XML" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"x": [1, 0, 0]}, "none of its 1 keys is an image here: 'x'"),
        ({"2007_000032": [1, 0]}, "1 images have no tags: 2007_000032"),
        ({"2007_000032": [1, 0, 2]}, "numbers other than 0 and 1"),
        ({"2007_000032": ["zebra"]}, "class 'zebra'"),
        ({"2007_000032": {"a": 1}}, "1 images have no tags"),
        ([1], "no dict of tags"),
    ],
)
def test_bad_tags_are_named(content: object, text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"t\.json") as caught:
        read_tags(path, CLASSES, IDS)
    assert text in str(caught.value)


def test_other_files_are_answered(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    for name, text in (("a.txt", "a .txt file"), ("none.json", "cannot be read"), ("none", "no such file")):
        with pytest.raises(BadInput, match=text):
            read_tags(tmp_path / name, CLASSES, IDS)


def test_a_dataset_takes_tags_and_its_fingerprint_follows(
    voc_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = voc_folder()
    train = [f"a{i}" for i in range(12)]
    np.save(tmp_path / "cls_labels.npy", {i: np.array([0, 1], "f4") for i in train})
    words = ["data=folder", f"data.root={root}"]
    out = tmp_path / "tags.json"
    assert data.main(["import-tags", *words, f"tags={tmp_path / 'cls_labels.npy'}", f"out={out}"]) == 0
    assert "5 images have none: v0" in capsys.readouterr().out
    plain = open_dataset("folder", root=str(root))
    dataset = open_dataset("folder", root=str(root), options={"tags": str(out)})
    assert dataset.tags("a0").tolist() == [0, 1]
    assert plain.tags("a0").tolist() == [1, 0]
    assert dataset.tags("v0").tolist() == plain.tags("v0").tolist()
    assert dataset.fingerprint(("a0",)) != plain.fingerprint(("a0",))
    assert dataset.fingerprint(("v0",)) == plain.fingerprint(("v0",))
    out.write_text(json.dumps({"a0": ["cat"]}))
    with pytest.raises(BadInput, match="no tags for 11 training images"):
        open_dataset("folder", root=str(root), options={"tags": str(out)})
    assert data.main(["import-tags", *words]) == 2
    assert data.main(["import-tags", *words, f"tags={out}", "out=/nowhere/t.json"]) == 2
