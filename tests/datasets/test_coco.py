"""COCO 2014: every layout is the same dataset, masks are made once from the JSON, and what is wrong with it is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official

from harness.datasets import coco, open_dataset
from harness.datasets.coco import survey
from harness.datasets.coco.conversion import KNOWN
from harness.datasets.coco.names import CATEGORY_IDS, CLASS_OF, CLASSES
from harness.datasets.disk import conversion
from harness.datasets.disk.rasterise import Unreadable, decode, label_map, run_lengths
from harness.errors import BadInput, Problem


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "SIZES", miniatures.COCO_SIZES)


def refusal(root: Path, **words: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        open_dataset("coco", root=str(root), **words)
    return caught.value.problems


@pytest.mark.parametrize("layout", miniatures.COCO_LAYOUTS)
def test_every_layout_is_the_same_dataset(tmp_path: Path, whole: None, layout: str) -> None:
    miniatures.COCO_LAYOUTS[layout](tmp_path)
    dataset = open_dataset("coco", root=str(tmp_path))
    assert (dataset.name, dataset.family, dataset.num_labels, dataset.has_background) == ("coco", "coco", 81, True)
    assert dataset.ids("train") == tuple(miniatures.coco_id(n, "train") for n in miniatures.COCO_TRAIN)
    assert dataset.ids("val") == tuple(miniatures.coco_id(n, "val") for n in miniatures.COCO_VAL)
    dataset.check(dataset.ids("train") + dataset.ids("val"))
    for number in miniatures.COCO_TRAIN[:4]:
        name = miniatures.coco_id(number, "train")
        assert np.array_equal(dataset.mask(name), miniatures.coco_mask(number, "train"))
        assert (np.flatnonzero(dataset.tags(name)) + 1).tolist() == list(miniatures.coco_labels(number, "train"))
    # One fingerprint whatever the layout: masks are made as the prepared ones are.
    assert dataset.fingerprint(dataset.ids("train"))[:8] == "90205f3f"


def test_val_part_is_a_split_of_its_own(tmp_path: Path, whole: None) -> None:
    root = miniatures.coco(tmp_path)
    dataset = open_dataset("coco", root=str(root))
    assert dataset.splits() == {"train": True, "val": True, "val_part": True}
    assert dataset.ids("val_part") == dataset.ids("val")[:2]
    miniatures.save_list(root / "val_part.txt", ["COCO_val2014_000000000999"])
    assert "1 ids are not in val" in refusal(root)[0].found


def test_masks_are_made_once_and_continued(tmp_path: Path, whole: None, monkeypatch: pytest.MonkeyPatch) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    made: list[str] = []
    make = conversion._make

    def killed(*arguments: Any) -> Any:
        if len(made) == 25:
            raise KeyboardInterrupt
        made.append(arguments[-1])
        return make(*arguments)

    monkeypatch.setattr(conversion, "read_many", lambda work, todo, **_: map(work, todo))
    monkeypatch.setattr(conversion, "_make", killed)
    with pytest.raises(KeyboardInterrupt):
        open_dataset("coco", root=str(root))
    folder = root / "SegmentationClass/train2014"
    assert len(list(folder.glob("[!.]*.png"))) == 25
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.png")}
    monkeypatch.setattr(conversion, "_make", lambda *arguments: made.append(arguments[-1]) or make(*arguments))
    dataset = open_dataset("coco", root=str(root))
    assert len(made) == len(set(made)) == len(miniatures.COCO_TRAIN) + len(miniatures.COCO_VAL)
    assert all((folder / name).stat().st_mtime_ns == time for name, time in first.items())
    assert {path.name for path in folder.iterdir()} == {f"{i}.png" for i in dataset.ids("train")} | {".conversion.json"}
    again = open_dataset("coco", root=str(root))
    assert again.fingerprint(again.ids("train")) == dataset.fingerprint(dataset.ids("train"))
    assert len(made) == len(set(made))


def test_masks_of_another_json_are_refused(tmp_path: Path, whole: None) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    open_dataset("coco", root=str(root))
    path = root / "annotations/instances_val2014.json"
    path.write_text(path.read_text() + " ")
    (problem,) = refusal(root)
    assert problem.where == str(root / "SegmentationClass/val2014")
    assert "another instances_val2014.json" in problem.found


def test_masks_that_were_removed_are_made_again(tmp_path: Path, whole: None) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    dataset = open_dataset("coco", root=str(root))
    digest = dataset.fingerprint(dataset.ids("train"))
    gone = dataset.mask_path(dataset.ids("train")[3])
    others = {path: path.stat().st_mtime_ns for path in root.rglob("*.png") if path != gone}
    gone.unlink()
    again = open_dataset("coco", root=str(root))
    assert gone.is_file()
    assert again.ids("train") == dataset.ids("train")
    assert again.fingerprint(again.ids("train")) == digest
    assert {path: path.stat().st_mtime_ns for path in others} == others
    gone.unlink()
    (root / "annotations/instances_train2014.json").unlink()
    problem = next(p for p in refusal(root) if p.where == str(gone.parent))
    assert (
        problem.found == "some of the masks that were made from instances_train2014.json are gone, and so is that file"
    )
    assert "put instances_train2014.json into" in problem.fix


def test_a_record_of_the_conversion_that_is_a_link_is_not_read(tmp_path: Path, whole: None) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path / "data")
    open_dataset("coco", root=str(root))
    record = root / "SegmentationClass/train2014/.conversion.json"
    record.rename(tmp_path / "outside.json")
    record.symlink_to(tmp_path / "outside.json")
    (problem,) = refusal(root)
    assert problem.where == str(record)
    assert problem.found.startswith("a link")


def test_masks_named_in_capitals_are_masks(tmp_path: Path, whole: None) -> None:
    root = miniatures.coco(tmp_path)
    for path in root.rglob("SegmentationClass/**/*.png"):
        path.rename(path.with_suffix(".PNG"))
    dataset = open_dataset("coco", root=str(root))
    dataset.check(dataset.ids("train") + dataset.ids("val"))
    assert dataset.fingerprint(dataset.ids("train"))[:8] == "90205f3f"


def test_masks_from_elsewhere_are_left_alone(tmp_path: Path, whole: None) -> None:
    root = miniatures.coco(tmp_path, annotations=True)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    open_dataset("coco", root=str(root))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.png")} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, whole: None) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    root.chmod(0o500)
    assert any("masks cannot be written" in p.found for p in refusal(root))
    root.chmod(0o700)


Damage = Callable[[dict[str, Any]], Any]


def _set(*path: Any, value: Any) -> Damage:
    def damage(content: dict[str, Any]) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_set("annotations", 0, "segmentation", value=[[1, 2, 3]]), "a polygon that is no list of at least three"),
        (_set("annotations", 0, "segmentation", value=[[1, 2, 3, 4, 5, "6"]]), "coordinates are not all numbers"),
        (_set("annotations", 0, "segmentation", value=[[1, 2, 3, 4, 5, 1e9]]), "far outside the image of 32x24"),
        (_set("annotations", 0, "segmentation", value=7), "segmentation is int"),
        (_set("annotations", 0, "category_id", value=12), "category_id 12 is none of COCO's 80"),
        (_set("annotations", 1, "segmentation", "counts", value="~~~"), "run lengths in no text form"),
        (_set("annotations", 1, "segmentation", "counts", value="oooo"), "run lengths that are cut off"),
        (_set("annotations", 1, "segmentation", "counts", value="00"), "run lengths cover 0 pixels"),
        (
            _set("annotations", 2, "segmentation", "counts", value=[1, 2]),
            "run lengths cover 3 pixels, the image has 768",
        ),
        (_set("annotations", 2, "segmentation", "counts", value=[-1, 769]), "no list of counts"),
        (_set("annotations", 2, "segmentation", "size", value=[9, 9]), "run lengths for size [9, 9]"),
        (_set("annotations", 0, "image_id", value=5), "annotations of images that are not there: 5"),
        (_set("images", 0, "height", value="24"), "1 images without a sound id and size: 9"),
        (_set("images", 1, "id", value=9), "1 images stand there twice: 9"),
        (_set("categories", 0, "name", value="thing"), "categories are not COCO's 80 (1: 'thing')"),
        (_set("annotations", value={}), "no list of annotations: this is no instances file"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, whole: None, damage: Damage, found: str) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    path = root / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    problems = [p for p in refusal(root) if p.where == str(path)]
    assert found in problems[0].found
    assert problems[0].fix


OUTLINES = [
    ([*miniatures.rectangle(4, 4, 20, 24), [3.0, 3.0, 9.0, 9.0]], "a polygon of fewer than three corners"),
    ([*miniatures.rectangle(4, 4, 20, 24), []], "a polygon of fewer than three corners"),
    ([[3.0, 3.0, 9.0, 9.0]], "a polygon of fewer than three corners"),
    ([], "no outline"),
    (None, "no outline"),
]
"""Two points beside a good polygon, nothing beside one, two points alone, nothing, a box alone."""


@pytest.mark.parametrize(("outline", "what"), OUTLINES)
def test_what_covers_no_pixel_is_skipped_and_told(tmp_path: Path, whole: None, outline: Any, what: str) -> None:
    """The large object of the first image is drawn where it has a good polygon; else its box is ignored."""
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    path = root / "annotations/instances_train2014.json"
    content = json.loads(path.read_text())
    first = next(a for a in content["annotations"] if a["area"] == 320.0)
    image_id, label = first["image_id"], miniatures.coco_labels(first["image_id"], "train")[0]
    first["bbox"] = [4, 4, 20, 16]
    if outline is None:
        del first["segmentation"]
    else:
        first["segmentation"] = outline
    path.write_text(json.dumps(content))
    expected = miniatures.coco_mask(image_id, "train")
    if outline is None or len(outline) < 2:
        expected[expected == label] = 255
    for _ in range(2):  # made, then found
        found = survey(root=str(root))
        assert not found.errors
        (warning,) = [p for p in found.warnings if p.where == str(path)]
        assert warning.found == f"1 annotations are not whole: annotation {first['id']} of image {image_id} has {what}"
        assert np.array_equal(found.opened().mask(miniatures.coco_id(image_id, "train")), expected)


def test_a_json_cut_off_is_named(tmp_path: Path, whole: None) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    path = root / "annotations/instances_train2014.json"
    path.write_text(path.read_text()[:-300])
    assert any(p.where == str(path) and p.found.startswith("no whole JSON file") for p in refusal(root))


def test_category_ids_and_stuff_in_masks_are_named(tmp_path: Path, whole: None) -> None:
    root = miniatures.coco(tmp_path)
    dataset = open_dataset("coco", root=str(root))
    name = dataset.ids("train")[0]
    for label, kind in ((88, "category ids (1..90 with gaps)"), (150, "COCO-Stuff")):
        miniatures.save_mask(root / f"SegmentationClass/train2014/{name}.png", miniatures.objects((1, label)), None)
        with pytest.raises(BadInput) as caught:
            dataset.check(dataset.ids("train"))
        (problem,) = caught.value.problems
        assert f"label {label}" in problem.found
        assert kind in problem.fix


@pytest.mark.parametrize(("count", "known"), [(82783, "without annotation included"), (82080, "82,081 expected")])
def test_wrong_lists_are_known_by_their_size(tmp_path: Path, count: int, known: str) -> None:
    root = miniatures.coco(tmp_path)
    miniatures.save_list(root / "train.txt", [f"{i}" for i in range(count)])
    found = [p.found for p in refusal(root) if p.where.endswith("train.txt")]
    assert known in found[0]


def test_nothing_to_read_names_what_to_get(tmp_path: Path) -> None:
    problems = refusal(tmp_path)
    assert [p.fix for p in problems][:1] == ["unpack train2014.zip and val2014.zip there"]
    root = miniatures.coco(tmp_path / "x", masks=None)
    assert any("neither masks of train nor annotations" in p.found for p in refusal(root))
    assert refusal(root, masks="../x")[0].where == "data.masks"


def test_run_lengths_are_cocos(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        for shape in ((7, 5), (40, 61), (1, 1)):
            pixels = rng.random(shape) < share
            encoded = official.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()
            counts = run_lengths(encoded)
            assert sum(counts) == pixels.size
            for given in (encoded, counts):
                assert np.array_equal(decode({"size": list(shape), "counts": given}, *shape), pixels)


def test_smaller_objects_lie_on_larger_ones_and_crowds_below_all() -> None:
    box = miniatures.rectangle
    objects = [
        {"category_id": 1, "segmentation": box(0, 0, 2, 4), "area": 8.0},
        {"category_id": 90, "segmentation": box(0, 0, 2, 2), "area": 4.0},
        {"category_id": 3, "segmentation": box(0, 1, 2, 3), "area": 4.0},
        {"category_id": 1, "segmentation": {"size": [2, 6], "counts": [4, 8]}, "area": 1.0, "iscrowd": 1},
    ]
    row = [80, 80, 3, 1, 255, 255]
    assert label_map(2, 6, objects, CLASS_OF, KNOWN).tolist() == [row, row]
    for objects_now in (objects[::-1], objects[2:] + objects[:2]):
        assert set(label_map(2, 6, objects_now, CLASS_OF, KNOWN)[0].tolist()) == {80, 3, 1, 255}
    with pytest.raises(Unreadable):
        label_map(2, 6, [{"category_id": True, "segmentation": []}], CLASS_OF, KNOWN)


def test_random_annotations_give_our_errors_only() -> None:
    rng = np.random.default_rng(0)
    letters = [chr(c) for c in range(40, 126)]
    good = 0
    for _ in range(2000):
        text = "".join(rng.choice(letters, int(rng.integers(1, 12))))
        values = rng.normal(3, 3, int(rng.integers(0, 12))).round(int(rng.integers(0, 3))).tolist()
        for segmentation in ({"size": [6, 7], "counts": text}, {"size": [6, 7], "counts": values}, [values], values):
            try:
                good += decode(segmentation, 6, 7).shape == (6, 7)
            except Unreadable:
                continue
    assert good


def test_class_order_is_that_of_the_category_ids() -> None:
    assert len(CLASSES) == 81
    assert len(CATEGORY_IDS) == 80
    assert (CLASSES[1], CLASSES[12], CLASSES[80]) == ("person", "stop sign", "toothbrush")
    assert (CATEGORY_IDS[0], CATEGORY_IDS[11], CATEGORY_IDS[79]) == (1, 13, 90)


def test_made_masks_carry_a_palette(tmp_path: Path, whole: None) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path)
    dataset = open_dataset("coco", root=str(root))
    with Image.open(root / f"SegmentationClass/train2014/{dataset.ids('train')[0]}.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[3:6] == [128, 0, 0]
