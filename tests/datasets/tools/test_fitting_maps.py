"""Other programs' CAMs and masks as a whole: another numbering, transposed maps, palettes; each told as what it is."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import main
from harness.datasets import open_dataset
from harness.datasets.disk.files import FileDataset
from harness.datasets.disk.foreign_files import MAPS, find_files
from harness.datasets.io.colours import COLOURS
from harness.datasets.tools.fitting_maps import MapFile, judge_maps
from harness.errors import BadInput, Problem
from harness.evaluation.foreign import Counter, count
from harness.scoring.curves import threshold_grid

Maker = Callable[..., Path]
SIZE = (24, 32)


@pytest.fixture
def dataset(voc_folder: Maker) -> FileDataset:
    """Each image shows cat or dog in turn: classes 0 and 1, label values 1 and 2."""
    found = open_dataset("folder", root=str(voc_folder(classes=("background", "cat", "dog", "owl"))))
    assert isinstance(found, FileDataset)
    return found


def classes_of(dataset: FileDataset, image_id: str) -> list[int]:
    return np.flatnonzero(dataset.tags(image_id)).tolist()


def perfect(dataset: FileDataset, image_id: str) -> np.ndarray:
    return np.stack([dataset.mask(image_id) == c + 1 for c in classes_of(dataset, image_id)]).astype(np.float32)


def files(dataset: FileDataset, shift: int = 0, size: tuple[int, int] = SIZE) -> dict[str, MapFile]:
    ids = dataset.ids("val") + dataset.ids("test")
    return {i: MapFile(f"{i}.npz", tuple(c + shift for c in classes_of(dataset, i)), size) for i in ids}


def test_the_true_tags_and_supersets_of_them_pass(dataset: FileDataset) -> None:
    assert judge_maps(dataset, files(dataset)) == ([], [])
    every = {i: MapFile(i, (0, 1, 2), SIZE) for i in dataset.ids("val")}
    assert judge_maps(dataset, every) == ([], [])
    stacks = {i: MapFile(i, None, SIZE) for i in dataset.ids("val")}
    assert judge_maps(dataset, stacks) == ([], [])


@pytest.mark.parametrize(
    ("shift", "told"),
    [
        (1, "classes of 5 of 5 files are not the true tags; they fit with one less: keys are label values"),
        (-1, "classes of 5 of 5 files are not the true tags; they fit with one more: the first foreground class is 0"),
    ],
)
def test_another_numbering_is_an_error(dataset: FileDataset, shift: int, told: str) -> None:
    (problem,), warnings = judge_maps(dataset, files(dataset, shift))
    assert problem.found.startswith(told)
    assert problem.fix.endswith("so that class 0 is 'cat'")
    assert not warnings


def test_a_few_files_that_differ_are_predictions_and_many_are_a_warning(dataset: FileDataset) -> None:
    held = files(dataset)
    held["v0"] = MapFile("v0.npz", (2,), SIZE)
    held["v1"] = MapFile("v1.npz", (0, 2), SIZE)
    assert judge_maps(dataset, held) == ([], [])
    swapped = {i: MapFile(i, tuple(1 - c for c in classes_of(dataset, i)), SIZE) for i in held}
    del swapped["v0"]
    errors, (warning,) = judge_maps(
        dataset, swapped | {"t0": MapFile("t0", (2,), SIZE), "t1": MapFile("t1", (2,), SIZE)}
    )
    assert not errors
    assert warning.found.startswith("4 of 4 files lack a class that their image shows (v1 has ")


def test_nothing_above_zero_is_a_warning_unless_the_images_show_nothing(dataset: FileDataset, tmp_path: Path) -> None:
    dark = {i: MapFile(file.where, file.classes, SIZE, lit=False) for i, file in files(dataset).items()}
    errors, (warning,) = judge_maps(dataset, dark)
    assert warning.found == "5 of 5 files hold nothing above zero, though their images show classes"
    assert not errors
    few = files(dataset) | {i: dark[i] for i in ("v0", "v1")}
    assert judge_maps(dataset, few) == ([], [])
    for image_id in dark:
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(dataset.layout.root / f"SegmentationClass/{image_id}.png")
    empty = open_dataset("folder", root=str(dataset.layout.root))
    assert judge_maps(empty, dark) == ([], [])
    zeros = np.zeros((1, 6, 8), np.float32)
    assert [MapFile.of(tmp_path, np.array([0]), maps, True).lit for maps in (zeros, zeros + 0.1)] == [False, True]


def test_transposed_maps_are_an_error_at_any_resolution(dataset: FileDataset) -> None:
    for size, small in (((32, 24), False), ((8, 6), True), ((320, 240), False)):
        (problem,), _ = judge_maps(dataset, files(dataset, size=size))
        assert (
            problem.found == f"maps of 5 of 5 files are transposed: {size[0]} rows of {size[1]}, the image has 24 of 32"
        )
        assert problem.fix == "write maps as (n,h,w), rows first, as the image is", small
    for size in ((24, 24), (6, 8), (1, 1), (14, 14), (240, 320)):
        assert judge_maps(dataset, files(dataset, size=size)) == ([], [])


def write_npy(folder: Path, dataset: FileDataset, content: Callable[[list[int], np.ndarray], object]) -> Path:
    folder.mkdir(exist_ok=True)
    for image_id in dataset.ids("val"):
        held = content(classes_of(dataset, image_id), perfect(dataset, image_id))
        np.save(folder / f"{image_id}.npy", held, allow_pickle=True)  # type: ignore[arg-type]
    return folder


NUMBERINGS = {
    "a dict by label value": lambda classes, maps: {c + 1: m for c, m in zip(classes, maps, strict=True)},
    "label values as keys": lambda classes, maps: {"keys": np.array(classes) + 1, "cam": maps},
    "out of range too": lambda classes, maps: {"keys": np.array([c + 1 for c in classes] + [3])[-2:], "cam": maps},
}


@pytest.mark.parametrize("kind", ["a dict by label value", "label values as keys"])
def test_import_refuses_label_values_and_leaves_nothing(
    dataset: FileDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    words = ["data=folder", f"data.root={dataset.layout.root}", f"out={tmp_path / 'out'}"]
    good = write_npy(tmp_path / "good", dataset, lambda classes, maps: {"keys": np.array(classes), "cam": maps})
    assert main(["import-cams", f"cams={good}", *words]) == 0
    assert "3 files converted" in capsys.readouterr().out
    bad = write_npy(tmp_path / "bad", dataset, NUMBERINGS[kind])
    assert main(["import-cams", f"cams={bad}", *words]) == 2
    told = capsys.readouterr().err
    assert "classes of 3 of 3 files are not the true tags; they fit with one less: keys are label values" in told
    assert told.count("error:") == 1
    assert not list((tmp_path / "out").glob("*.npz"))


def test_label_values_beyond_the_classes_are_told_as_label_values(
    voc_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With cat and dog alone, label 2 is out of range: what it means matters, not that it is."""
    held = open_dataset("folder", root=str(voc_folder()))
    assert isinstance(held, FileDataset)
    bad = write_npy(tmp_path / "bad", held, NUMBERINGS["label values as keys"])
    words = [f"cams={bad}", "data=folder", f"data.root={held.layout.root}", f"out={tmp_path / 'out'}"]
    assert main(["import-cams", *words]) == 2
    told = capsys.readouterr().err
    assert told.count("error:") == 1
    assert "keys are label values" in told


def test_a_background_among_label_values_is_told(
    voc_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """{0: background, label value: map} is no file of class 0, 'cat', in every image."""
    held = open_dataset("folder", root=str(voc_folder()))
    assert isinstance(held, FileDataset)

    def content(classes: list[int], maps: np.ndarray) -> dict[int, np.ndarray]:
        return {0: 1 - maps.max(0), **{c + 1: m for c, m in zip(classes, maps, strict=True)}}

    bad = write_npy(tmp_path / "bad", held, content)
    words = [f"cams={bad}", "data=folder", f"data.root={held.layout.root}", f"out={tmp_path / 'out'}"]
    assert main(["import-cams", *words]) == 2
    told = capsys.readouterr().err
    assert told.count("error:") == 1
    assert "classes of 3 of 3 files are not the true tags; they fit with one less: keys are label values" in told
    assert "fix: write them with 1 less, without the background (0), so that class 0 is 'cat'" in told
    assert not list((tmp_path / "out").glob("*.npz"))


def test_files_of_all_classes_are_not_taken_for_label_values(dataset: FileDataset) -> None:
    """{0, 1} of images that show 0, three of five here, fits with one less too if 0 is a background."""
    held = files(dataset)
    assert sum(file.classes == (0,) for file in held.values()) == 3
    assert judge_maps(dataset, {i: replace(file, classes=(0, 1)) for i, file in held.items()}) == ([], [])


def counted(dataset: FileDataset, folder: Path, suffix: str) -> list[Problem]:
    """The problems of a folder's files of the val split; [] where they are counted."""
    grid = None if suffix == ".png" else threshold_grid(0.5)
    colours = dataset.palette(dataset.ids("val")) if suffix == ".png" else {}
    found = find_files(folder, dataset.ids("val"), (suffix,), "cams")
    try:
        scored, _ = count(Counter(dataset, found, grid, colours), dataset.ids("val"), what="scoring")
    except BadInput as error:
        return error.problems
    assert len(scored) == 3
    return []


def write_npz(folder: Path, dataset: FileDataset, shift: int = 0, turn: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for i in dataset.ids("val"):
        maps = perfect(dataset, i)
        maps = maps.transpose(0, 2, 1) if turn else maps
        np.savez(folder / f"{i}.npz", classes=np.array(classes_of(dataset, i)) + shift, cam=maps)
    return folder


def test_scoring_refuses_shifted_and_transposed_maps(dataset: FileDataset, tmp_path: Path) -> None:
    assert counted(dataset, write_npz(tmp_path / "a", dataset), ".npz") == []
    (problem,) = counted(dataset, write_npz(tmp_path / "b", dataset, 1), ".npz")
    assert "classes of 3 of 3 files are not the true tags; they fit with one less" in problem.found
    (problem,) = counted(dataset, write_npz(tmp_path / "c", dataset, turn=True), ".npz")
    assert "maps of 3 of 3 files are transposed" in problem.found


def test_stacks_with_a_background_or_the_classes_last_are_named(dataset: FileDataset, tmp_path: Path) -> None:
    for name, shape, told in (
        ("with", (4, *SIZE), "4 maps for 3 classes: is the first one the background?"),
        ("last", (*SIZE, 3), "(C,h,w) is expected, the classes first"),
    ):
        (tmp_path / name).mkdir()
        for i in dataset.ids("val"):
            np.save(tmp_path / name / f"{i}.npy", np.zeros(shape, np.float32))
        (problem,) = counted(dataset, tmp_path / name, ".npy")
        assert told in problem.found
        assert "likewise 2 more" in problem.found


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def noise(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def encrypted(path: Path) -> None:
    """The flag of an encrypted member in the local header and in the directory."""
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(sign)
        while start >= 0:
            data[start + at] |= 1
            start = data.find(sign, start + 4)
    path.write_bytes(data)


def bomb(path: Path) -> None:
    """Two gigabytes of zeros as the archive says, which nobody should unpack."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 65536, 32768), }"
        with archive.open("cam.npy", "w", force_zip64=True) as member:
            member.write(header.ljust(127) + b"\n")
            for _ in range(40):
                member.write(b"\0" * (1 << 20))
        archive.writestr("classes.npy", b"")
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = (0x7FFFFFFF).to_bytes(4, "little")
    path.write_bytes(data)


def huge(path: Path) -> None:
    """An array that says it has 2^50 numbers and holds none."""
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 33554432, 33554432), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("classes.npy", header.ljust(127) + b"\n")
        archive.writestr("cam.npy", header.ljust(127) + b"\n")


def other_names(path: Path) -> None:
    np.savez(path, keys=np.arange(2), maps=np.zeros((2, 3, 3)))


def objects(path: Path) -> None:
    np.savez(path, classes=np.array([{"a": 1}], object), cam=np.zeros((1, 3, 3)))


@pytest.mark.parametrize("damage", [cut, noise, empty, encrypted, bomb, huge, other_names, objects])
def test_hostile_archives_are_our_errors(dataset: FileDataset, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = write_npz(tmp_path / "cams", dataset)
    damage(folder / "v1.npz")
    (problem,) = counted(dataset, folder, ".npz")
    assert problem.where == str(folder / "v1.npz")
    assert problem.fix
    if damage is encrypted:
        assert problem.found == "cannot be read: an encrypted archive"
    if damage in (bomb, huge):
        assert "1 GiB" in problem.found or "impossible shape" in problem.found


def save_masks(folder: Path, dataset: FileDataset, numbers: Callable[[int], tuple[list[int], list[int]]]) -> Path:
    """Perfect predictions; `numbers` gives for each file the numbers of the labels 0, 1, 2 and the colours of these."""
    folder.mkdir(exist_ok=True)
    for at, i in enumerate(dataset.ids("val")):
        new, colours = numbers(at)
        table = np.full(256, 255, np.uint8)
        table[: len(new)] = new
        image = Image.fromarray(table[dataset.mask(i)])
        held = [COLOURS[c] for c in colours] + [COLOURS[99]] * 253
        image.putpalette([v for colour in held for v in colour])
        image.save(folder / f"{i}.png")
    return folder


def test_palettes_of_predictions_are_held_against_each_other(dataset: FileDataset, tmp_path: Path) -> None:
    same = save_masks(tmp_path / "same", dataset, lambda at: ([0, 1, 2], [0, 1, 2]))
    assert counted(dataset, same, ".png") == []
    own = save_masks(tmp_path / "own", dataset, lambda at: ([1, 0, 0], [1 + at % 2, 0, 5]))
    (problem,) = counted(dataset, own, ".png")
    assert problem.where == str(own)
    assert "label 0 has 2 colours over 3 files" in problem.found
    assert "each file has a palette of its own" in problem.found


def test_palettes_of_predictions_are_held_against_those_of_the_masks(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    for path in (root / "SegmentationClass").glob("*.png"):
        image = Image.open(path)
        image.putpalette([v for colour in COLOURS for v in colour])
        image.save(path)
    held = open_dataset("folder", root=str(root))
    assert isinstance(held, FileDataset)
    assert held.palette(held.ids("val")) == {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}
    right = save_masks(tmp_path / "right", held, lambda at: ([0, 1, 2], [0, 1, 2]))
    assert counted(held, right, ".png") == []
    sorted_by_size = save_masks(tmp_path / "wrong", held, lambda at: ([1, 0, 0], [1 + at % 2, 0, 0]))
    (problem,) = counted(held, sorted_by_size, ".png")
    assert problem.found.startswith(
        "wrong palette: label 0 has the colour of 1 (cat), 1 has the colour of 0 (background)"
    )
    assert "likewise" in problem.found
    other_colours = save_masks(tmp_path / "other", held, lambda at: ([0, 1, 2], [0, 9, 12]))
    assert counted(held, other_colours, ".png") == []


def test_a_prediction_with_rows_and_columns_exchanged_is_named(dataset: FileDataset, tmp_path: Path) -> None:
    tmp = tmp_path / "turned"
    tmp.mkdir()
    for i in dataset.ids("val"):
        Image.fromarray(dataset.mask(i).T.copy()).save(tmp / f"{i}.png")
    (problem,) = counted(dataset, tmp, ".png")
    assert problem.found.startswith("24x32 pixels, its image has 32x24: it is transposed; likewise 2 more")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_among_files_is_named_and_nobody_waits_for_it(
    voc_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = voc_folder()
    for name in ("JPEGImages/a0.jpg", "SegmentationClass/a1.png", "classes.txt"):
        (root / name).unlink()
        os.mkfifo(root / name)
    assert main(["check", "data=folder", f"data.root={root}"]) == 1
    told = capsys.readouterr().out
    assert "are no plain files (a folder, a pipe, a dead link): a0.jpg" in told
    assert "are no plain files (a folder, a pipe, a dead link): a1.png" in told
    assert f"{root / 'classes.txt'}: cannot be read (a pipe, no plain file)" in told
    os.mkfifo(tmp_path / "tags.json")
    assert main(["check", "data=folder", f"data.root={root}", f"data.tags={tmp_path / 'tags.json'}"]) in (1, 2)
    os.mkfifo(tmp_path / "v0.npy")
    assert main(["import-cams", f"cams={tmp_path}", "data=folder", f"data.root={root}", f"out={tmp_path / 'o'}"]) == 2
    with pytest.raises(BadInput, match="has no file for 1 images"):
        find_files(tmp_path, ["v0"], MAPS, "cams")
