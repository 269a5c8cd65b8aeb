"""`data.annotations`: COCO-style JSON with categories of its own as the masks of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import pytest
from PIL import Image

from harness.data import main
from harness.datasets import open_dataset
from harness.datasets.folder import Folder
from harness.errors import BadInput, Problem

HEIGHT, WIDTH = 12, 16
CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}, {"id": 30, "name": "cow"}]
BOX = miniatures.rectangle


def content(first: int, *images: list[dict[str, Any]], categories: Any = CATEGORIES) -> dict[str, Any]:
    """Annotations of these images, named i<number>.png, each given by its objects."""
    numbers = range(first, first + len(images))
    objects = [{**deepcopy(o), "image_id": n} for n, held in zip(numbers, images, strict=True) for o in held]
    return {
        "images": [{"id": n, "file_name": f"i{n}.png", "height": HEIGHT, "width": WIDTH} for n in numbers],
        "annotations": [{"id": 100 + place, **one} for place, one in enumerate(objects)],
        "categories": deepcopy(categories),
    }


IMAGES: tuple[list[dict[str, Any]], ...] = (
    [{"category_id": 9, "segmentation": BOX(2, 3, 6, 11)}],
    [  # 10 background pixels column by column, then 20 of cow.
        {"category_id": 30, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [10, 20, HEIGHT * WIDTH - 30]}}
    ],
    [  # The smaller one lies on top, whichever stands first.
        {"category_id": 4, "segmentation": BOX(0, 0, 4, 4)},
        {"category_id": 9, "segmentation": BOX(0, 0, 10, 10)},
    ],
    [],
)


def write(root: Path, given: Any, name: str = "own.json", folder: str = "JPEGImages") -> Path:
    """Images and their JSON, which lies in the root or, where the images do not lie in JPEGImages, beside them."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in given["images"]:
        Image.new("RGB", (WIDTH, HEIGHT), (9, 60, 200)).save(root / folder / Path(image["file_name"]).name)
    path = root / name if folder == "JPEGImages" else root / folder / name
    path.write_text(json.dumps(given))
    return path


def write_lists(root: Path, **lists: str) -> None:
    (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    for split, ids in lists.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(ids.replace(" ", "\n"))


def opened(root: Path, annotations: str = "own.json", **words: str) -> Folder:
    dataset = open_dataset("folder", root=str(root), options={"annotations": annotations}, **words)
    assert isinstance(dataset, Folder)
    return dataset


def refusal(root: Path, annotations: str = "own.json", **words: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        opened(root, annotations, **words)
    assert not list(root.glob("masks_*"))
    assert all(problem.fix for problem in caught.value.problems)
    return caught.value.problems


def pixels(dataset: Folder, image_id: str) -> dict[int, int]:
    values, counts = np.unique(dataset.mask(image_id), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "pets", content(1, *IMAGES))
    write_lists(tmp_path / "pets", train="i1 i2", val="i3 i4")
    return tmp_path / "pets"


def test_categories_with_gaps_are_labels_in_order_of_their_ids(root: Path) -> None:
    dataset = opened(root)
    assert dataset.class_names == ("background", "cat", "dog", "cow")
    assert dataset.has_background
    assert dataset.splits() == {"train": True, "val": True}
    assert dataset.ids("train") == ("i1", "i2")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:6, 3:11] = 2
    assert np.array_equal(dataset.mask("i1"), expected)
    assert pixels(dataset, "i2") == {0: HEIGHT * WIDTH - 20, 3: 20}
    assert dataset.mask("i2")[:, 0].tolist() == [0] * 10 + [3] * 2
    assert pixels(dataset, "i3") == {0: HEIGHT * WIDTH - 100, 1: 16, 2: 84}
    assert pixels(dataset, "i4") == {0: HEIGHT * WIDTH}
    assert dataset.tags("i3").tolist() == [1.0, 1.0, 0.0]
    assert dataset.image("i1")[0, 0].tolist() == [9, 60, 200]
    dataset.check(("i1", "i2", "i3", "i4"))


def test_whole_numbers_may_be_written_with_a_point(root: Path) -> None:
    """As pandas writes a column of ids that once had a gap."""
    given = content(1, *IMAGES)
    for image in given["images"]:
        image |= {name: float(image[name]) for name in ("id", "height", "width")}
    for annotation in given["annotations"]:
        annotation |= {name: float(annotation[name]) for name in ("image_id", "category_id")}
    ids = ("i1", "i2", "i3", "i4")
    masks = {i: opened(root).mask(i) for i in ids}
    (root / "own.json").write_text(json.dumps(given))
    assert all(np.array_equal(opened(root).mask(i), masks[i]) for i in ids)
    assert len(list(root.glob("masks_*"))) == 2


def test_masks_are_made_once_for_each_content_of_the_file(root: Path) -> None:
    first = opened(root).fingerprint(("i1", "i2"))
    (folder,) = root.glob("masks_*")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {path.name for path in times} == {"i1.png", "i2.png", "i3.png", "i4.png", ".conversion.json"}
    assert opened(root, str(root / "own.json")).fingerprint(("i1", "i2")) == first
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    (folder / "i2.png").unlink()
    assert opened(root).fingerprint(("i1", "i2")) == first
    # As many bytes, other labels.
    path = root / "own.json"
    path.write_text(path.read_text().replace('"category_id": 9', '"category_id": 4', 1))
    changed = opened(root)
    assert pixels(changed, "i1")[1] == 32
    assert changed.fingerprint(("i1", "i2")) != first
    assert len(list(root.glob("masks_*"))) == 2


def test_two_files_are_train_and_val_where_there_are_no_lists(tmp_path: Path) -> None:
    write(tmp_path, content(1, *IMAGES[:2]), "a.json")
    second = content(1, *IMAGES[2:])
    for image in second["images"]:
        image["file_name"] = f"sub/v{image['id']}.png"  # numbers begin anew in each file
    write(tmp_path, second, "b.json")
    dataset = opened(tmp_path, "a.json,b.json")
    assert (dataset.ids("train"), dataset.ids("val")) == (("i1", "i2"), ("v1", "v2"))
    assert pixels(dataset, "v1") == {0: HEIGHT * WIDTH - 100, 1: 16, 2: 84}


def test_one_file_without_lists_is_asked_about(tmp_path: Path) -> None:
    write(tmp_path, content(1, *IMAGES))
    (problem,) = refusal(tmp_path)
    assert problem.where == str(tmp_path / "ImageSets/Segmentation")
    assert "data.annotations=<train.json>,<val.json>" in problem.fix


def test_a_file_in_each_split_folder_beside_the_images(tmp_path: Path) -> None:
    """Roboflow's layout, with its group of id 0, which no annotation has."""
    categories = [{"id": 0, "name": "cat", "supercategory": "none"}]
    categories += [{"id": 1, "name": name, "supercategory": "cat"} for name in ("cat",)]
    for first, folder in ((1, "train"), (5, "valid"), (7, "test")):
        given = content(first, [{"category_id": 1, "segmentation": BOX(0, 0, 2, 3)}], categories=categories)
        write(tmp_path, given, "_annotations.coco.json", folder)
    dataset = opened(tmp_path, "_annotations.coco.json")
    assert dataset.class_names == ("background", "cat")
    assert [dataset.ids(split) for split in ("train", "val", "test")] == [("i1",), ("i5",), ("i7",)]
    assert pixels(dataset, "i7") == {0: HEIGHT * WIDTH - 6, 1: 6}
    assert dataset.image_path("i5") == tmp_path / "valid/i5.png"


def test_degenerate_polygons_are_those_of_coco(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = content(1, *IMAGES)
    given["annotations"][0] |= {"segmentation": [[1, 1, 5, 5]], "bbox": [3, 2, 8, 4]}
    write(root, given)
    assert pixels(opened(root), "i1") == {0: HEIGHT * WIDTH - 32, 255: 32}
    assert main(["check", "data=folder", f"data.root={root}", "data.annotations=own.json"]) == 0
    assert "annotation 100 of image 1 has a polygon of fewer than three corners" in capsys.readouterr().out


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda c: c.pop("annotations"), "no list of annotations"),
        (lambda c: c["annotations"][0].update(category_id=5), "in no category: 5 (1 annotations); there are 4, 9, 30"),
        (lambda c: c["annotations"][0].update(image_id=77), "annotations of images that are not there: 77"),
        (
            lambda c: [a.update(image_id=str(a["image_id"])) for a in c["annotations"]],
            "4 annotations whose image_id is no whole number: '1', '2', '3'",
        ),
        (
            lambda c: c["annotations"][0].update(image_id=1.5),
            "1 annotations whose image_id is no whole number: 1.5",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "image 1: a polygon that is no list"),
        (lambda c: c["annotations"][1]["segmentation"].update(size=[3, 3]), "image 2: run lengths for size [3, 3]"),
        (lambda c: c["images"][0].update(file_name="i2.png"), "1 images have the name of another one: i2"),
        (lambda c: c["images"][0].update(file_name="../../x"), "1 images without a sound file_name: 1: '../../x'"),
        (lambda c: c["images"][0].update(height=HEIGHT + 1), "annotated as 16x13 pixels, the image has 16x12"),
        (lambda c: c["images"].pop(3), "1 ids of val.txt are no image"),
        (lambda c: c["categories"].append({"id": 31, "name": "cat"}), "names of more than one category: cat"),
        (lambda c: c["categories"].append({"id": "x", "name": "cat"}), "without an id and name of their own"),
        (lambda c: c.update(categories=[], annotations=[]), "0 categories, 1 to 254 expected"),
    ],
)
def test_bad_annotations_are_named(root: Path, change: Change, found: str) -> None:
    given = content(1, *IMAGES)
    change(given)
    (root / "own.json").write_text(json.dumps(given))
    told = [problem.found for problem in refusal(root)]
    assert any(found in text for text in told), told


def test_everything_that_is_wrong_is_told_at_once(root: Path) -> None:
    given = content(1, *IMAGES)
    given["annotations"][0]["category_id"] = 5
    given["annotations"][1]["segmentation"] = 7
    given["images"][2]["width"] = HEIGHT
    (root / "own.json").write_text(json.dumps(given))
    (root / "JPEGImages/i4.png").unlink()
    told = "\n".join(problem.found for problem in refusal(root))
    for found in ("in no category: 5", "segmentation is int", "annotated as 12x12", "have no file: i4.png"):
        assert told.count(found) == 1, told


def test_masks_that_nobody_made_are_not_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = content(0, *IMAGES)
    for one in given["annotations"]:
        one["segmentation"] = {"size": [WIDTH, HEIGHT], "counts": [0, HEIGHT * WIDTH]}
    (root / "own.json").write_text(json.dumps(given))
    assert main(["check", "data=folder", f"data.root={root}", "data.annotations=own.json"]) == 1
    text = capsys.readouterr().out
    assert f"run lengths for size [{WIDTH}, {HEIGHT}], the image has [{HEIGHT}, {WIDTH}]" in text
    assert "own.json, own.json" not in text
    assert "there is no such file" not in text


def test_wrong_words_and_files_are_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "cut.json").write_text((root / "own.json").read_text()[:-30])
    assert refusal(root, "cut.json")[0].found.startswith("no whole JSON file")
    assert refusal(root, "nowhere.json")[0].where == "data.annotations"
    assert refusal(root, "JPEGImages")[0].found.endswith("JPEGImages is a folder")
    assert [p.where for p in refusal(root, masks="x", classes="y")] == ["data.masks", "data.classes"]
    with pytest.raises(BadInput, match=r"data.annotations: voc has no such option"):
        open_dataset("voc", root=str(root), options={"annotations": "own.json"})
    assert main(["check", "data=folder", f"data.root={root}", "data.annotations=cut.json"]) == 1
    assert "no whole JSON file" in capsys.readouterr().out


def test_images_that_are_links_out_of_the_folder_are_refused(root: Path, tmp_path: Path) -> None:
    (root / "JPEGImages/i1.png").rename(tmp_path / "secret.png")
    (root / "JPEGImages/i1.png").symlink_to(tmp_path / "secret.png")
    assert "a link that leaves its folder" in [p.found for p in refusal(root)]


def test_changed_values_give_our_errors_only(root: Path) -> None:
    whole = json.dumps(content(1, *IMAGES))
    rng = np.random.default_rng(0)
    values: list[Any] = [
        None,
        True,
        -1,
        9,
        1e300,
        10**400,
        "",
        "~",
        "x" * 5000 + ".png",
        "a\0/b.jpg",
        [],
        [[]],
        {},
        [5, 3],
    ]
    refused = 0
    for _ in range(150):
        changed = json.loads(whole)
        part = changed[["images", "annotations", "categories"][int(rng.integers(3))]]
        entry = part[int(rng.integers(len(part)))]
        entry[[*entry, "supercategory"][int(rng.integers(len(entry) + 1))]] = values[int(rng.integers(len(values)))]
        (root / "own.json").write_text(json.dumps(changed))
        try:
            opened(root)
        except BadInput as error:
            refused += all(bool(problem.fix) for problem in error.problems)
    assert refused > 50
