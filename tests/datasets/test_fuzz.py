"""Random and damaged bytes give our errors and nothing else, and nothing outside the dataset's folder is opened.

`WSSS_FUZZ=100000` sets the number of tries of the short tests; the slow ones make a hundred thousand each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import miniatures
import nibabel
import numpy as np
import pytest
from miniatures import cams_of, read_maps
from PIL import Image

from harness.data import main
from harness.datasets import open_dataset
from harness.datasets.acdc.volumes import read_images, read_labels
from harness.datasets.cityscapes import city_id
from harness.datasets.coco.conversion import KNOWN, read_instances
from harness.datasets.coco.names import CLASS_OF, image_name
from harness.datasets.disk.rasterise import Unreadable, label_map
from harness.datasets.disk.tag_files import read_tags
from harness.datasets.io.archives import read_npz, read_plain_npy
from harness.datasets.io.images import read_image, read_mask, verify_image
from harness.datasets.io.listing import field_id, is_plain, plain_id, read_ids, read_lines
from harness.datasets.io.restricted import read_npy
from harness.datasets.weak.drawn import parse_scribbles, read_points
from harness.errors import BadInput, Problem

TRIES = int(os.environ.get("WSSS_FUZZ", "400"))
MANY = 100_000


def mutations(seeds: list[bytes], tries: int, alphabet: bytes = b"") -> Any:
    """Byte strings: seeds cut, changed, lengthened, spliced and emptied, and noise; the same each time."""
    rng = np.random.default_rng(0)
    for i in range(tries):
        data = bytearray(seeds[i % len(seeds)])
        kind = int(rng.integers(6))
        if kind == 0:
            data = data[: int(rng.integers(len(data) + 1))]
        elif kind == 1:
            for at in rng.integers(max(1, len(data)), size=int(rng.integers(1, 8))):
                data[at : at + 1] = bytes([int(rng.integers(256))])
        elif kind == 2:
            at = int(rng.integers(len(data) + 1))
            data[at:at] = rng.bytes(int(rng.integers(1, 30)))
        elif kind == 3:
            other = seeds[int(rng.integers(len(seeds)))]
            data = data[: int(rng.integers(len(data) + 1))] + other[int(rng.integers(len(other) + 1)) :]
        elif kind == 4:
            data = bytearray(rng.bytes(int(rng.integers(200))))
        elif alphabet:
            data = bytearray(alphabet[int(n)] for n in rng.integers(len(alphabet), size=int(rng.integers(60))))
        yield bytes(data)


def lists(folder: Path, tries: int) -> int:
    path = folder / "list.txt"
    seeds = [b"2007_000032\n2007_000039\n", b"a.jpg a.png\n", b"/JPEGImages/a.jpg /x/a.png\n", b"COCO_val2014_000042\n"]
    seeds.append(b"leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png\n")
    parsers: list[Callable[[str], str | None]] = [plain_id, field_id, city_id, partial(image_name, split="val")]
    refused = 0
    for data in mutations(seeds, tries, b"a0_./\\~ \n\r\t\0\xff.."):
        path.write_bytes(data)
        for parse in parsers:
            problems: list[Problem] = []
            ids = read_ids(path, folder, problems, parse)
            assert all(is_plain(image_id) for image_id in ids)
            assert all(problem.where == str(path) for problem in problems)
            refused += bool(problems)
    return refused


def pictures(folder: Path, tries: int) -> int:
    path = folder / "picture.png"
    seeds = []
    for mode, form in (("P", "PNG"), ("L", "PNG"), ("RGB", "PNG"), ("RGB", "JPEG"), ("1", "PNG"), ("I;16", "PNG")):
        array = np.arange(99, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(9, 11)
        image = Image.fromarray(array) if mode == "I;16" else Image.fromarray(array).convert(mode)
        image.save(path, form)
        seeds.append(path.read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(array.astype(np.uint8)).convert("RGB").save(path, "JPEG", exif=exif)
    return _refusals(path, [*seeds, path.read_bytes()], tries, [read_mask, read_image, verify_image])


def volumes(folder: Path, tries: int) -> int:
    path = folder / "volume.nii"
    labels = np.arange(60).reshape(5, 4, 3) % 4
    seeds = []
    for kind in (np.int16, np.float32, np.uint8):
        nibabel.save(nibabel.Nifti1Image(labels.astype(kind), np.eye(4)), path)
        seeds.append(path.read_bytes())
    return _refusals(path, seeds, tries, [read_images, read_labels])


def arrays(folder: Path, tries: int) -> int:
    path = folder / "labels.npy"
    np.save(path, {"2007_000032": np.ones(20, np.float32)})
    pickled = path.read_bytes()
    np.save(path, np.ones((2, 3), np.float32))
    return _refusals(path, [pickled, path.read_bytes()], tries, [read_npy])


def scribbles(folder: Path, tries: int) -> int:
    seed = (
        b"<annotation><size><width>32</width><height>24</height></size><polygon><tag>dog</tag>"
        b"<point><X>3</X><Y>4</Y></point><point><X>9</X><Y>8</Y></point></polygon></annotation>"
    )
    refused = 0
    for data in mutations([seed], tries, b"<>/&;polygntagpintXY01.- "):
        try:
            parse_scribbles(data, "a.xml", ("background", "dog"), (24, 32))
        except BadInput as error:
            refused += error.problems[0].where == "a.xml"
    return refused


def annotations(folder: Path, tries: int) -> int:
    """As many bytes of an instances file as changed values in it: what passes as a file is drawn."""
    path = folder / "instances.json"
    content = miniatures.coco_json("train", miniatures.COCO_TRAIN[:1])
    whole = json.dumps(content).encode()
    refused = _refusals(path, [whole], tries, [read_instances], b'{}[]:,"0123456789-.eE truefalsn')
    rng = np.random.default_rng(1)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        9,
        1e300,
        float("nan"),
        "",
        "0" * 9,
        "~",
        [],
        [[]],
        [[1] * 6],
        {},
        [5, 3],
        10**400,
    ]
    values += [
        {"size": [24, 32], "counts": counts} for counts in ("", "P0", "o" * 40, [768], [1, -1, 768], [1e9], [2**70])
    ]
    for _ in range(tries):
        changed = json.loads(whole)
        part = changed[["images", "annotations", "categories"][int(rng.integers(3))]]
        entry = part[int(rng.integers(len(part)))]
        entry[list(entry)[int(rng.integers(len(entry)))]] = values[int(rng.integers(len(values)))]
        path.write_text(json.dumps(changed))
        try:
            instances = read_instances(path)
            for number, size in instances.sizes.items():
                assert label_map(*size, instances.annotations[number], CLASS_OF, KNOWN).shape == size
        except BadInput as error:
            refused += all(problem.where == str(path) for problem in error.problems)
        except Unreadable:
            refused += 1
    return refused


def _refusals(
    path: Path, seeds: list[bytes], tries: int, readers: list[Callable[[Path], Any]], alphabet: bytes = b""
) -> int:
    refused = 0
    for data in mutations(seeds, tries, alphabet):
        path.write_bytes(data)
        for read in readers:
            try:
                read(path)
            except BadInput as error:
                if not all(problem.where == str(path) and problem.fix for problem in error.problems):
                    pytest.fail(f"another file is named: {error}")
                refused += 1
    return refused


def points(folder: Path, tries: int) -> int:
    seeds = [
        b'{"2007_000032": [{"x": 3, "y": 4, "cls": 7, "rank": 1}, {"x": 20.5, "y": 1e1, "cls": 0}], "b": []}',
        b'{"a": [{"x": NaN, "y": -1, "cls": 1}]}',
    ]
    alphabet = b'{}[]:,"xycls0123456789-.eE truefalsnN'
    return _refusals(folder / "points.json", seeds, tries, [partial(read_points, num_labels=21)], alphabet)


def tag_json(folder: Path, tries: int) -> int:
    seeds = [
        b'{"a": ["dog"], "b": ["plane", "cat"], "2007_000032": []}',
        b'{"classes": ["aeroplane", "cat", "dog"], "tags": {"a": ["cat"], "b": [], "2007_000032": ["dog"]}}',
        b'{"a.jpg": [0, 1, 1], "b": [0, 1, 0, 1], "2007000032": [1.0, 0, 0]}',
    ]
    read = partial(read_tags, classes=("aeroplane", "cat", "dog"), ids=("a", "b", "2007_000032"))
    return _refusals(folder / "tags.json", seeds, tries, [read], b'{}[]:,"abdogct01.- _eEnul')


def tag_xml(folder: Path, tries: int) -> int:
    seed = (
        b"<annotation><filename>a.jpg</filename><object><name>dog</name><difficult>0</difficult></object>"
        b"<object><name>tvmonitor</name></object></annotation>"
    )
    read = partial(read_tags, classes=("dog", "tvmonitor"), ids=("a",))
    return _refusals(folder / "a.xml", [seed], tries, [lambda path: read(path.parent)], b"<>/&;objectnamedg \xff")


def maps(folder: Path, tries: int) -> int:
    """Archives of another program's CAMs: whole, compressed, with other arrays; and bare arrays."""
    path = folder / "a.npz"
    np.savez(path, classes=np.array([0, 2], np.int16), cam=np.ones((2, 3, 4), np.float16))
    seeds = [path.read_bytes()]
    np.savez_compressed(path, classes=np.array([1]), cam=np.zeros((1, 5, 5), np.float32))
    seeds.append(path.read_bytes())
    np.savez(path, keys=np.array([{"a": 1}], object))
    seeds.append(path.read_bytes())
    np.save(folder / "a.npy", np.ones((3, 4, 5), np.float32))
    seeds.append((folder / "a.npy").read_bytes())
    shapes = open_dataset("shapes", options={"n_train": "1", "n_val": "1", "n_test": "1"})
    readers: list[Callable[[Path], Any]] = [partial(read_npz, names=("classes", "cam")), read_plain_npy]
    return _refusals(path, seeds, tries, [*readers, partial(read_maps, dataset=shapes)])


def cam_dicts(folder: Path, tries: int) -> int:
    """The field's dicts of maps with changed keys and values, as they come out of the restricted reader."""
    rng = np.random.default_rng(2)
    values: list[Any] = [
        *(None, True, -1, 3, 1e300, float("nan"), "", "cam", [], [1, 2], [[0]], {}, {"keys": 1}),
        *(np.zeros(0), np.array(7), np.arange(3), np.array(["a", "b"]), np.full((2, 3, 4), np.inf)),
        *(np.zeros((2, 3)), np.ones((2, 3, 4)), np.full((1, 3, 4), 7.0), np.ones((2, 3, 4), bool)),
    ]
    refused = 0
    for _ in range(tries):
        content: Any = [{"keys": np.array([0, 2]), "cam": np.ones((2, 3, 4))}, {0: np.ones((3, 4)), 2: np.ones((3, 4))}]
        content = content[int(rng.integers(2))]
        for _ in range(int(rng.integers(1, 3))):
            key = [*content, "high_res", "IS_CAM", 1, "x", -5][int(rng.integers(len(content) + 5))]
            content[key] = values[int(rng.integers(len(values)))]
        try:
            classes, cam = cams_of(content, "a.npy", 3)
            assert len(classes) == len(cam)
        except BadInput as error:
            refused += all(problem.where == "a.npy" and bool(problem.fix) for problem in error.problems)
    return refused


READERS = [lists, pictures, volumes, arrays, scribbles, annotations, points, tag_json, tag_xml, maps, cam_dicts]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_damaged_bytes_give_our_errors_only(tmp_path: Path, reader: Callable[[Path, int], int]) -> None:
    assert reader(tmp_path, TRIES) > TRIES // 4


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_hundred_thousand_damaged_files_give_our_errors_only(
    tmp_path: Path, reader: Callable[[Path, int], int]
) -> None:
    assert reader(tmp_path, MANY) > MANY // 4


class Opened:
    """Paths that this process opens while it is on."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self.paths.append(os.fsdecode(arguments[0]))


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


@pytest.mark.parametrize("name", ["voc", "folder", "coco", "cityscapes"])
def test_no_file_outside_the_folder_is_opened(tmp_path: Path, opened: Opened, name: str) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "inside" / "data"
    miniatures.voc(outside)
    if name in ("voc", "folder"):
        base = miniatures.voc(root) / "VOC2012"
        train, image, ending = base / "ImageSets/Segmentation/train_aug.txt", base / "JPEGImages", ".jpg"
        if name == "folder":
            train = train.with_name("train.txt")
    elif name == "coco":
        base = miniatures.coco(root)
        train, image, ending = base / "train.txt", base / "JPEGImages/train2014", ".jpg"
    else:
        base = miniatures.cityscapes(root, lists=True)
        train, image, ending = base / "splits/cityscapes/train.txt", base / "leftImg8bit/train/aachen", ".png"
    secret = outside / "secret"
    for suffix in ("", ".jpg", ".png", ".txt"):
        Path(f"{secret}{suffix}").write_text("secret")
    first = sorted(image.iterdir())[0]
    first.unlink()
    os.symlink(f"{secret}{ending}", first)
    (base / "classes.txt").symlink_to(f"{secret}.txt")
    for label_file in ("voc_whats_the_point.json", "voc_scribbles.zip", "weak/blocks/x.png", "20clicks/city"):
        (base / label_file).parent.mkdir(parents=True, exist_ok=True)
        (base / label_file).symlink_to(outside if label_file.endswith("city") else f"{secret}.txt")
    (base / "val_part.txt").unlink(missing_ok=True)
    (base / "val_part.txt").symlink_to(f"{secret}.txt")
    good = train.read_text()
    if name != "coco":
        val = train.with_name("val.txt")
        val.unlink()
        val.symlink_to(f"{secret}.txt")
    up = "../" * 8 + str(secret).lstrip("/")
    opened.paths.clear()
    for line in (str(secret), up, f"{up}.jpg {up}.png", f"x/{up}", f"..\\..\\{secret.name}", "~/secret", f"{secret}\0"):
        for text in (line + "\n", good + line + "\n", good):
            train.write_text(text)
            opened.on = True
            try:
                dataset = open_dataset(name, root=str(base))
                for image_id in dataset.ids("train"):
                    dataset.image(image_id)
                    dataset.mask(image_id)
            except BadInput:
                pass
            finally:
                opened.on = False
    opened.on = True
    try:
        assert main(["check", f"data={name}", f"data.root={base}"]) == 1, "links out are errors"
    finally:
        opened.on = False
    assert any(str(base) in path for path in opened.paths)
    leaks = [path for path in opened.paths if os.path.realpath(path).startswith(os.path.realpath(outside))]
    assert not leaks


def test_an_annotation_file_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    root = miniatures.COCO_LAYOUTS["annotations"](tmp_path / "in")
    path = root / "annotations/instances_train2014.json"
    path.rename(tmp_path / "secret.json")
    path.symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match="a link that leaves its folder"):
        open_dataset("coco", root=str(root))


def test_links_out_of_a_list_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a\n")
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "secret.txt", tmp_path / "in/list.txt")
    problems: list[Problem] = []
    assert read_lines(tmp_path / "in/list.txt", tmp_path / "in", problems) is None
    assert problems[0].found == "a link that leaves its folder"
