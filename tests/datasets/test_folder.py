"""The VOC-layout folder: reading, class names, fingerprints, and every kind of bad input by name."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.datasets import DATASETS, open_dataset
from harness.datasets.disk.facts import mask_facts
from harness.datasets.folder import Folder
from harness.datasets.io.images import ArrayCache, attempt, merged, read_image, read_mask, verify_image
from harness.errors import BadInput, Problem

Maker = Callable[..., Path]


def opened(root: Path, **words: str) -> Folder:
    dataset = open_dataset("folder", root=str(root), **words)
    assert isinstance(dataset, Folder)
    return dataset


def refusal(root: Path, **words: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        opened(root, **words)
    return caught.value.problems


def all_ids(dataset: Folder) -> tuple[str, ...]:
    return sum((dataset.ids(split) for split in dataset.splits()), ())


def check_problems(root: Path) -> list[Problem]:
    dataset = opened(root)
    with pytest.raises(BadInput) as caught:
        dataset.check(all_ids(dataset))
    return caught.value.problems


def grey_png(bits: int, rows: bytes, width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_good_folder_reads_as_it_was_written(voc_folder: Maker) -> None:
    dataset = opened(voc_folder())
    assert dataset.splits() == {"train": True, "val": True, "test": True}
    assert dataset.ids("train") == tuple(f"a{i}" for i in range(12))
    assert (dataset.num_labels, dataset.num_classes, dataset.has_background) == (3, 2, True)
    assert dataset.image("a0").shape == (24, 32, 3)
    assert dataset.size("a0") == (24, 32)
    mask = dataset.mask("a1")
    assert mask.dtype == np.uint8
    assert {value: int((mask == value).sum()) for value in np.unique(mask)} == {0: 618, 2: 104, 255: 46}
    assert dataset.tags("a0").tolist() == [1.0, 0.0]
    assert dataset.tags("a1").tolist() == [0.0, 1.0]
    assert np.array_equal(dataset.weak("a1", "masks"), mask)
    dataset.check(all_ids(dataset))


def test_tags_are_those_of_the_base_class(voc_folder: Maker) -> None:
    for classes in (("background", "cat", "dog"), ("wall", "cat", "dog")):
        dataset = opened(voc_folder(classes=classes))
        for image_id in all_ids(dataset):
            assert np.array_equal(dataset.tags(image_id), super(Folder, dataset).tags(image_id))


def test_class_names_follow_the_rule(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder(classes=None)
    numbers = opened(root)
    assert numbers.class_names == ("0", "1", "2")
    assert not numbers.has_background
    assert numbers.tags("a1").tolist() == [1.0, 0.0, 1.0]
    (root / "classes.txt").write_text("\ufeffbackground\r\ncat\r\ndog\r\n\r\n", encoding="utf-8")
    assert opened(root).class_names == ("background", "cat", "dog")
    (root / "classes_SegmentationClass.txt").write_text("wall\nx\ny\n")
    assert opened(root).class_names == ("wall", "x", "y")
    (tmp_path / "own.txt").write_text("background\np\nq\nr")
    assert opened(root, classes=str(tmp_path / "own.txt")).class_names == ("background", "p", "q", "r")
    assert refusal(root, classes="nowhere.txt")[0].where == "data.classes"
    (tmp_path / "own.txt").write_text("background\n\ncat\ncat")
    found = [p.found for p in refusal(root, classes=str(tmp_path / "own.txt"))]
    assert found == ["line 2 is empty: later labels would shift", "names given twice: cat"]
    (tmp_path / "own.txt").write_text("\n".join(map(str, range(256))))
    assert "256 class names" in refusal(root, classes=str(tmp_path / "own.txt"))[0].found


def test_index_masks_of_every_depth_read_as_numbers(tmp_path: Path) -> None:
    truth = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    Image.fromarray(truth).save(tmp_path / "grey8.png")
    palette = Image.fromarray(truth)
    palette.putpalette([9, 9, 9] * 4)
    palette.save(tmp_path / "palette.png", bits=2)
    (tmp_path / "grey4.png").write_bytes(grey_png(4, b"\0\x01\x23\0\x32\x10", 4, 2))
    (tmp_path / "grey2.png").write_bytes(grey_png(2, b"\0\x1b\0\xe4", 4, 2))
    for name in ("grey8", "palette", "grey4", "grey2"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), truth), name
    Image.fromarray(truth > 1).save(tmp_path / "grey1.png")
    assert np.array_equal(read_mask(tmp_path / "grey1.png"), truth > 1)


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    for read in (read_image, verify_image):
        with pytest.raises(BadInput, match="8-bit"):
            read(tmp_path / "deep.png")


def test_all_problems_of_a_folder_are_told_at_once(voc_folder: Maker) -> None:
    root = voc_folder()
    (root / "JPEGImages/a3.jpg").unlink()
    (root / "SegmentationClass/v1.png").unlink()
    (root / "ImageSets/Segmentation/train.txt").open("a").write("a1\na1\nt0\nghost\n")
    (root / "classes.txt").write_text("background\ncat\ncat\n")
    text = "\n".join(map(str, refusal(root)))
    for part in (
        "train.txt: 1 ids stand there more than once: a1",
        "1 ids stand in more than one of train.txt, test.txt: t0",
        "2 listed ids have no image: a3, ghost",
        "1 listed ids have no mask (train.txt): ghost",
        "1 listed ids have no mask (val.txt): v1",
        "names given twice: cat",
    ):
        assert part in text, text


@pytest.mark.parametrize("line", ["../../secret", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "~x", "a\0b", "a\tb"])
def test_an_id_that_leaves_the_folder_is_refused(voc_folder: Maker, line: str) -> None:
    root = voc_folder()
    (root / "ImageSets/Segmentation/val.txt").write_bytes(b"v0\n" + line.encode() + b"\n")
    (problem,) = refusal(root)
    assert problem.where.endswith("val.txt")
    assert "1 lines are no ids" in problem.found


def test_missing_parts_are_named(voc_folder: Maker, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"data.root: not given"):
        open_dataset("folder")
    assert "no such folder" in refusal(tmp_path / "nowhere")[0].found
    root = voc_folder()
    assert "is not a folder" in refusal(root / "classes.txt")[0].found
    (problem,) = refusal(root, masks="SegmentationClassAug")
    assert problem.where == "data.masks"
    assert problem.found.endswith("mini/SegmentationClassAug")
    assert "SegmentationClass" in problem.fix
    assert refusal(root, masks="../mini/SegmentationClass")[0].where == "data.masks"
    shutil.rmtree(root / "ImageSets")
    shutil.rmtree(root / "JPEGImages")
    where = [p.where for p in refusal(root)]
    assert [Path(w).name for w in where] == ["train.txt", "val.txt or test.txt", "JPEGImages"]


@pytest.mark.parametrize("above", ["VOC2012", "VOCdevkit/VOC2012"])
def test_a_root_above_the_dataset_is_answered_with_the_root(voc_folder: Maker, tmp_path: Path, above: str) -> None:
    (tmp_path / "up" / above).parent.mkdir(parents=True)
    voc_folder().rename(tmp_path / "up" / above)
    (problem,) = refusal(tmp_path / "up")
    assert (problem.where, problem.fix) == ("data.root", f"data.root={tmp_path}/up/{above}")
    open_dataset("folder", root=problem.fix.removeprefix("data.root="))


@pytest.mark.parametrize("place", ["", "ImageSets", "ImageSets/Main"])
def test_folders_and_lists_under_other_names_are_named(voc_folder: Maker, place: str) -> None:
    root = voc_folder()
    (root / "JPEGImages").rename(root / "images")
    lists = root / "ImageSets/Segmentation"
    (root / place).mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        (lists / f"{split}.txt").rename(root / place / f"{split}.txt")
    train, val, images = refusal(root)
    assert train.fix == f"move {root / place}/train.txt there"
    assert val.fix == f"move {root / place}/val.txt there"
    assert images.fix.endswith("(ln -s <folder> JPEGImages); the folders here are images")
    for split in ("train", "val", "test"):
        (root / place / f"{split}.txt").rename(lists / f"{split}.txt")
    (root / "JPEGImages").symlink_to("images")
    assert open_dataset("folder", root=str(root)).splits() == {"train": True, "val": True, "test": True}


def test_lists_with_suffixes_empty_lists_and_bytes_are_named(voc_folder: Maker) -> None:
    root = voc_folder()
    lists = root / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("v0.jpg\nv1.jpg\n")
    assert any("without suffix" in p.fix for p in refusal(root))
    (lists / "val.txt").write_text("\n \n")
    assert refusal(root)[0].found == "the list is empty"
    (lists / "val.txt").write_bytes(b"\xff\xfe\x00v0")
    assert refusal(root)[0].found == "not UTF-8 text"


def test_two_files_for_one_id_and_links_out_are_refused(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    shutil.copy(root / "JPEGImages/a0.jpg", root / "JPEGImages/a0.jpeg")
    assert refusal(root)[0].found == "1 ids have two files: a0.jpeg and a0.jpg"
    (root / "JPEGImages/a0.jpeg").unlink()
    outside = tmp_path / "outside.png"
    shutil.move(root / "SegmentationClass/a0.png", outside)
    os.symlink(outside, root / "SegmentationClass/a0.png")
    assert refusal(root)[0].found == "1 files are links that leave it: a0.png"


def test_a_linked_folder_is_fine(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    shutil.move(root / "JPEGImages", tmp_path / "disk2")
    os.symlink(tmp_path / "disk2", root / "JPEGImages")
    opened(root).check(("a0", "t1"))


def test_test_split_without_masks_is_allowed_but_half_a_split_is_not(voc_folder: Maker) -> None:
    root = voc_folder()
    (root / "SegmentationClass/t0.png").unlink()
    assert "1 listed ids have no mask (test.txt): t0" in refusal(root)[0].found
    (root / "SegmentationClass/t1.png").unlink()
    dataset = opened(root)
    assert dataset.splits() == {"train": True, "val": True, "test": False}
    dataset.check(all_ids(dataset))
    assert dataset.fingerprint(dataset.ids("test")) != dataset.fingerprint(("t0",))
    with pytest.raises(BadInput, match="this image has no mask"):
        dataset.mask("t0")


def test_train_without_masks_is_refused(voc_folder: Maker) -> None:
    root = voc_folder()
    for i in range(12):
        (root / f"SegmentationClass/a{i}.png").unlink()
    assert refusal(root)[0].found == "12 listed ids have no mask (train.txt): a0, a1, a2, a3, a4, ..."


def test_check_names_every_damaged_file(voc_folder: Maker, mask_writer: Callable[..., None]) -> None:
    root = voc_folder()
    masks, images = root / "SegmentationClass", root / "JPEGImages"
    Image.new("RGB", (32, 24)).save(masks / "a0.png")
    Image.new("RGB", (32, 24)).save(masks / "a1.png")
    mask_writer(masks / "a2.png", np.full((24, 32), 22))
    mask_writer(masks / "a3.png", np.zeros((32, 24)))
    (masks / "a4.png").write_bytes((masks / "a4.png").read_bytes()[:-40])
    (masks / "a5.png").write_bytes(b"")
    Image.new("L", (32, 24)).save(masks / "a6.png", format="JPEG")
    (images / "a7.jpg").write_bytes((images / "a7.jpg").read_bytes()[:400])
    (images / "a8.jpg").write_bytes(b"not a picture")
    Image.new("I;16", (32, 24)).save(masks / "v0.png")
    problems = check_problems(root)
    found = {Path(p.where).name: p for p in problems}
    assert set(found) == {"a0.png", "a2.png", "a3.png", "a4.png", "a5.png", "a6.png", "a7.jpg", "a8.jpg", "v0.png"}
    assert found["a0.png"].found == "RGB mask, label numbers expected; likewise 1 more: a1.png"
    assert found["a2.png"].found.startswith("label 22, but the 3 classes (background, cat, dog) are labelled 0..2")
    assert found["a3.png"].found == "mask of 24x32 pixels, image of 32x24"
    assert found["a4.png"].found.startswith("damaged or cut off")
    assert found["a5.png"].found == "empty file"
    assert found["a6.png"].found.startswith("JPEG file")
    assert found["a7.jpg"].found.startswith("damaged or cut off")
    assert found["a8.jpg"].found.startswith("neither JPEG nor PNG")
    assert all(p.fix for p in problems)
    dataset = opened(root)
    for read, image_id in ((dataset.image, "a7"), (dataset.mask, "a2"), (dataset.tags, "a0"), (dataset.mask, "a5")):
        with pytest.raises(BadInput, match=f"{image_id}."):
            read(image_id)


def test_a_file_that_vanishes_is_named(voc_folder: Maker) -> None:
    root = voc_folder()
    dataset = opened(root)
    (root / "JPEGImages/a0.jpg").unlink()
    (root / "SegmentationClass/a1.png").unlink()
    with pytest.raises(BadInput) as caught:
        dataset.check(("a0", "a1"))
    (problem,) = caught.value.problems
    assert Path(problem.where).name == "a0.jpg"
    assert problem.found == "there is no such file; likewise 1 more: a1.png"
    with pytest.raises(BadInput, match=r"a0.jpg: there is no such file"):
        dataset.image("a0")


def test_unknown_names_are_answered_with_near_ones(voc_folder: Maker) -> None:
    assert {"folder", "shapes"} <= set(DATASETS)
    assert not {"base", "images", "augment", "splits", "loading", "layout"} & set(DATASETS)
    with pytest.raises(BadInput, match=r"did you mean folder\?"):
        open_dataset("foldr")
    with pytest.raises(BadInput, match=r"data.n_train: folder has no such option"):
        open_dataset("folder", root=str(voc_folder()), options={"n_train": "3"})
    dataset = opened(voc_folder())
    with pytest.raises(BadInput, match="no split trian"):
        dataset.ids("trian")
    with pytest.raises(BadInput, match="'a99' is in no list"):
        dataset.image("a99")
    with pytest.raises(BadInput, match=r"did you mean points\?"):
        dataset.weak("a0", "point")


def test_fingerprint_is_of_labels_ids_and_order_alone(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    dataset = opened(root)
    ids = dataset.ids("train")
    first = dataset.fingerprint(ids)
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    for path in (moved / "SegmentationClass").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(mask).save(path, compress_level=0)  # grey, other bytes, same labels
    assert opened(moved).fingerprint(ids) == first
    assert dataset.fingerprint(ids[::-1]) != first
    assert dataset.fingerprint(ids[:-1]) != first
    mask = np.asarray(Image.open(root / "SegmentationClass/a5.png")).copy()
    mask[0, 0] = 1
    Image.fromarray(mask).save(root / "SegmentationClass/a5.png")
    assert dataset.fingerprint(ids) != first
    assert dataset.fingerprint(ids[:5]) == opened(moved).fingerprint(ids[:5])
    assert opened(root, classes=str(root / "classes.txt")).fingerprint(ids) == dataset.fingerprint(ids)


def test_fingerprint_reads_each_mask_once(voc_folder: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(voc_folder())
    first = dataset.fingerprint(dataset.ids("train"))
    monkeypatch.setattr("harness.datasets.disk.facts.read_index", lambda path: pytest.fail(f"read again: {path}"))
    assert opened(dataset.layout.root).fingerprint(dataset.ids("train")) == first


def test_cached_arrays_are_shared_read_only_and_bounded(voc_folder: Maker) -> None:
    dataset = opened(voc_folder())
    assert dataset.image("a0") is dataset.image("a0")
    with pytest.raises(ValueError, match="read-only"):
        dataset.image("a0")[0, 0] = 1
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 4000
    assert np.array_equal(copy.mask("a1"), dataset.mask("a1"))
    cache = ArrayCache(10)
    made = []
    for key in ("x", "y", "x", "y"):
        cache.get(("image", key), lambda key=key: made.append(key) or np.zeros(8, np.uint8))
    assert made == ["x", "y", "y"]


def test_random_bytes_give_our_errors_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 3, (9, 9), dtype=np.uint8)).save(tmp_path / "good.png")
    Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "good.jpg")
    seeds = [(tmp_path / "good.png").read_bytes(), (tmp_path / "good.jpg").read_bytes(), b"", b"\x89PNG\r\n\x1a\n"]
    path = tmp_path / "noise"
    refused = 0
    for i in range(600):
        data = bytearray(seeds[i % 4])
        for _ in range(1 + i % 5):
            if data:
                data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(bytes(data) + rng.bytes(int(rng.integers(20))))
        for read in (read_image, read_mask, verify_image):
            try:
                read(path)
            except BadInput as error:
                refused += error.problems[0].where == str(path)
    assert refused > 900


def test_random_lists_give_our_errors_only(voc_folder: Maker) -> None:
    root = voc_folder()
    rng = np.random.default_rng(1)
    alphabet = b"av01\n\n\r/.\\~ \x00\xff"
    for _ in range(300):
        letters = rng.integers(len(alphabet), size=int(rng.integers(30)))
        (root / "ImageSets/Segmentation/val.txt").write_bytes(bytes(alphabet[i] for i in letters))
        try:
            dataset = opened(root)
        except BadInput:
            continue
        assert set(dataset.ids("val")) <= {"v0", "v1", "v2"}


def test_merged_counts_the_same_fault_once() -> None:
    problems = [Problem(f"/d/{i}.png", f"label {i}", "fix") for i in range(8)] + [Problem("/d/x.png", "other", "fix")]
    first, second = merged(problems)
    assert first == Problem("/d/0.png", "label 0; likewise 7 more: 1.png, 2.png, 3.png, 4.png, ...", "fix")
    assert second.found == "other"


def test_attempt_keeps_order_and_lets_bugs_through() -> None:
    assert [item for item, _ in attempt(str.upper, "qwertz")] == list("qwertz")
    with pytest.raises(KeyError):
        list(attempt(lambda item: {}[item], ["x"]))


@pytest.mark.parametrize(
    ("folder", "masks", "labels", "background", "sizes"),
    [
        ("msrc21", "SegmentationClassObj", 16, True, (276, 58, 257)),
        ("msrc21", "SegmentationClass", 21, False, (276, 58, 257)),
        ("camvid11", "SegmentationClass", 11, False, (367, 101, 233)),
        ("pets3", "SegmentationClass", 4, True, (399, 201)),
        ("voc2012_gt_sample", "SegmentationClass", 21, False, (2, 6)),
    ],
)
def test_real_photos_pass_every_check(
    real_data: Path, folder: str, masks: str, labels: int, background: bool, sizes: tuple[int, ...]
) -> None:
    dataset = opened(real_data / folder, masks=masks)
    assert (dataset.num_labels, dataset.has_background) == (labels, background)
    assert tuple(len(dataset.ids(split)) for split in dataset.splits()) == sizes
    dataset.check(all_ids(dataset))
    for image_id in dataset.ids("train")[:5]:
        mask = np.asarray(Image.open(dataset.mask_path(image_id)))
        assert np.array_equal(dataset.mask(image_id), mask)
        assert mask_facts(dataset.mask_path(image_id)).labels == tuple(np.unique(mask).tolist())
