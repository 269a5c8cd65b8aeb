"""A user's folder of one file an image: what is read of it, its digest, and all that is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.api.dataset import Dataset
from harness.api.images import Maps
from harness.datasets import open_dataset
from harness.datasets.tools import given
from harness.datasets.tools.given import GivenFolder
from harness.errors import BadInput


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return open_dataset("shapes", options={"n_train": "4", "n_val": "2", "n_test": "2"})


@pytest.fixture
def ids(shapes: Dataset) -> tuple[str, ...]:
    return shapes.ids("train")


def name(image_id: str, suffix: str) -> str:
    return image_id.replace("/", "~") + suffix


def write_maps(folder: Path, dataset: Dataset, ids: tuple[str, ...], *, shift: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for n, image_id in enumerate(ids):
        classes = np.flatnonzero(dataset.tags(image_id)).astype(np.int16) + shift
        cam = np.full((len(classes), 6, 6), 0.25 + n / 100, np.float16)
        np.savez(folder / name(image_id, ".npz"), classes=classes, cam=cam)


def test_maps_are_read_and_their_digest_is_of_their_content(tmp_path: Path, shapes: Dataset, ids: tuple[str, ...]):
    folder = tmp_path / "cams"
    write_maps(folder, shapes, ids)
    seeds = GivenFolder(folder, "maps", shapes, "mine.seeds")
    digest, warnings = seeds.check(ids)
    assert warnings == []
    read = seeds.read(ids[1])
    assert isinstance(read, Maps)
    assert not read.fused
    assert read.classes.tolist() == np.flatnonzero(shapes.tags(ids[1])).tolist()
    assert np.array_equal(read.scales["cam"][0], np.full((len(read.classes), 6, 6), np.float16(0.26), np.float32))
    shutil.copytree(folder, tmp_path / "elsewhere")
    # The archive's own bytes are no content: the same arrays compressed are the same files.
    for path in (tmp_path / "elsewhere").iterdir():
        with np.load(path) as f:
            held = dict(f)
        np.savez_compressed(path, **held)
    assert GivenFolder(tmp_path / "elsewhere", "maps", shapes, "mine.seeds").check(ids)[0] == digest
    with np.load(folder / name(ids[0], ".npz")) as f:
        classes, cam = f["classes"], f["cam"].copy()
    cam[0, 0, 0] += np.float16(0.125)
    np.savez(folder / name(ids[0], ".npz"), classes=classes, cam=cam)
    assert seeds.check(ids)[0] != digest
    assert seeds.check(ids[1:])[0] not in (digest, seeds.check(ids)[0])


def test_known_files_are_not_read_again(
    tmp_path: Path, shapes: Dataset, ids: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    write_maps(tmp_path / "cams", shapes, ids)
    digest = GivenFolder(tmp_path / "cams", "maps", shapes, "mine.seeds").check(ids)

    def unread(*args: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(given, "arrays_of", unread)
    assert GivenFolder(tmp_path / "cams", "maps", shapes, "mine.seeds").check(ids) == digest


def test_label_maps_and_vectors(tmp_path: Path, shapes: Dataset, ids: tuple[str, ...]):
    for folder in ("masks", "vectors"):
        (tmp_path / folder).mkdir()
    for n, image_id in enumerate(ids):
        Image.fromarray(shapes.mask(image_id)).save(tmp_path / "masks" / name(image_id, ".png"))
        np.save(tmp_path / "vectors" / name(image_id, ".npy"), np.arange(3) + n)
    masks = GivenFolder(tmp_path / "masks", "labels", shapes, "mine.masks")
    vectors = GivenFolder(tmp_path / "vectors", "vectors", shapes, "mine.tokens")
    assert masks.check(ids)[0] != vectors.check(ids)[0]
    assert np.array_equal(np.asarray(masks.read(ids[2])), shapes.mask(ids[2]))
    vector = np.asarray(vectors.read(ids[2]))
    assert vector.dtype == np.float32
    assert vector.tolist() == [2, 3, 4]


def problems(folder: GivenFolder, ids: tuple[str, ...]) -> str:
    with pytest.raises(BadInput) as e:
        folder.check(ids)
    return "\n".join(map(str, e.value.problems))


def test_everything_wrong_is_said_at_once(tmp_path: Path, shapes: Dataset, ids: tuple[str, ...]):
    write_maps(tmp_path / "cams", shapes, ids)
    seeds = GivenFolder(tmp_path / "cams", "maps", shapes, "mine.seeds")
    (tmp_path / "cams" / name(ids[0], ".npz")).write_bytes(b"PK no archive")
    np.savez(tmp_path / "cams" / name(ids[1], ".npz"), classes=np.array([99]), cam=np.zeros((1, 4, 4)))
    said = problems(seeds, ids)
    assert f"{name(ids[0], '.npz')}: " in said
    assert f"{name(ids[1], '.npz')}: class 99; known are 0.." in said
    (tmp_path / "cams" / name(ids[2], ".npz")).unlink()
    assert f"mine.seeds: {tmp_path / 'cams'} has no file for 1 images: {ids[2]}" in problems(seeds, ids)
    gone = GivenFolder(tmp_path / "gone", "maps", shapes, "mine.seeds")
    assert f"mine.seeds: {tmp_path / 'gone'} is no folder" in problems(gone, ids)


def test_another_numbering_is_an_error(tmp_path: Path, shapes: Dataset, ids: tuple[str, ...]):
    few = tuple(i for i in ids if shapes.tags(i)[-1] == 0)
    write_maps(tmp_path / "cams", shapes, few, shift=1)
    assert "they fit with one less" in problems(GivenFolder(tmp_path / "cams", "maps", shapes, "mine.seeds"), few)


def test_masks_of_another_size_and_vectors_of_two_lengths(tmp_path: Path, shapes: Dataset, ids: tuple[str, ...]):
    for n, image_id in enumerate(ids):
        Image.fromarray(shapes.mask(image_id)[: -1 if n else None]).save(tmp_path / name(image_id, ".png"))
        np.save(tmp_path / name(image_id, ".npy"), np.zeros(2 + (n > 1)))
    assert "pixels, its image has" in problems(GivenFolder(tmp_path, "labels", shapes, "mine.masks"), ids)
    assert "vectors of 2 and of 3 numbers" in problems(GivenFolder(tmp_path, "vectors", shapes, "mine.tokens"), ids)
    np.save(tmp_path / name(ids[0], ".npy"), np.zeros((2, 2)))
    said = problems(GivenFolder(tmp_path, "vectors", shapes, "mine.tokens"), ids[:1])
    assert "an array of shape (2, 2) (float64)" in said


def with_maps(folder: Path, dataset: Dataset, ids: tuple[str, ...], order: tuple[int, ...], *, stack: bool) -> None:
    """Maps of the classes that images show under the numbers of another order, as listed classes or a stack of all."""
    folder.mkdir()
    for image_id in ids:
        classes = np.array([order[c] for c in np.flatnonzero(dataset.tags(image_id))], np.int16)
        if stack:
            cam = np.zeros((dataset.num_classes, 4, 4), np.float16)
            cam[classes] = 0.5
            np.save(folder / name(image_id, ".npy"), cam)
        else:
            np.savez(folder / name(image_id, ".npz"), classes=classes, cam=np.full((len(classes), 4, 4), 0.5))


@pytest.mark.parametrize("stack", [False, True])
def test_another_order_of_classes_is_an_error(tmp_path: Path, stack: bool):
    dataset = open_dataset("shapes", options={"n_train": "24", "n_val": "2", "n_test": "2"})
    ids, count = dataset.ids("train"), dataset.num_classes
    same, other = tuple(range(count)), (1, 0, *range(2, count))
    with_maps(tmp_path / "same", dataset, ids, same, stack=stack)
    assert GivenFolder(tmp_path / "same", "maps", dataset, "mine.seeds").check(ids)[1] == []
    with_maps(tmp_path / "other", dataset, ids, other, stack=stack)
    names = [repr(n) for n in dataset.class_names[1:]]
    said = problems(GivenFolder(tmp_path / "other", "maps", dataset, "mine.seeds"), ids)
    assert f"classes are in another order: class 1 is written where {names[0]}, class 0, is shown, and so are 1" in said
    assert f"write them in the dataset's order: 0 for {names[0]}, 1 for {names[1]}" in said


def test_all_that_is_wrong_with_seeds_is_said_together(tmp_path: Path):
    """One file is missing, one is not finite, one is zero everywhere, one is of another aspect."""
    dataset = open_dataset("shapes", options={"n_train": "8", "n_val": "2", "n_test": "2"})
    ids = dataset.ids("train")
    write_maps(tmp_path / "cams", dataset, ids)
    missing, nan, zero, wide = (tmp_path / "cams" / name(i, ".npz") for i in ids[:4])
    missing.unlink()
    for path, image_id, cam in ((nan, ids[1], np.nan), (zero, ids[2], 0.0)):
        classes = np.flatnonzero(dataset.tags(image_id))
        np.savez(path, classes=classes, cam=np.full((len(classes), 4, 4), cam, np.float32))
    seeds = GivenFolder(tmp_path / "cams", "maps", dataset, "mine.seeds")
    said = problems(seeds, ids)
    assert f"has no file for 1 images: {ids[0]}" in said
    assert f"{nan.name}: maps are empty, not finite, or outside [0,1]" in said
    assert f"{zero.name}: no map has anything above 0, and {ids[2]} has a class" in said
    classes = np.flatnonzero(dataset.tags(ids[3]))
    np.savez(wide, classes=classes, cam=np.full((len(classes), 4, 8), 0.5, np.float32))
    said = problems(seeds, ids)
    assert "maps of 1 of 7 files have not the aspect of their image: 4 rows of 8, the image has" in said
    assert f"has no file for 1 images: {ids[0]}" in said
