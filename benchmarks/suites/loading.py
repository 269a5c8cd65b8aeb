"""Reading images and making training batches, next to the field's usual loader; every byte is compared first.

On generated photos of 500x375 pixels, or on the first ones of `msrc21` in the folder that WSSS_REAL_DATA names.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import Case
from benchmarks.reference import loading as plain
from harness.datasets import open_dataset
from harness.datasets.disk.files import FileDataset
from harness.datasets.io.images import read_image
from harness.datasets.loading import Loader, batch_indices, image_rng
from methods.parts.knobs import ViewKnobs
from methods.parts.views import colour
from methods.parts.views.crop_views import CropViews

SIZE = (375, 500)
IMAGES, BATCH = 32, 8
_SINK = np.empty(1 << 22, np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(number: int) -> NDArray[np.uint8]:
    """A picture (H,W,3) with the spectrum of a photo: blobs of several sizes, edges and fine grain."""
    rng = np.random.default_rng(number)
    out = np.full((*SIZE, 3), 128.0)
    for cells, strength in ((4, 110), (12, 60), (40, 30), (120, 14)):
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC))
        out += strength / 128 * (smooth - 128.0)
    out += 5 * rng.standard_normal(out.shape)
    out[SIZE[0] // 3 :, SIZE[1] // 2 :] *= 0.6
    return np.clip(out, 0, 255).astype(np.uint8)


@functools.cache
def folder() -> FileDataset:
    """Real photos, else a VOC-layout folder of a few JPEGs (quality 90) in a temporary place."""
    real = os.environ.get("WSSS_REAL_DATA")
    if real:
        dataset = open_dataset("folder", root=str(Path(real) / "msrc21"))
        assert isinstance(dataset, FileDataset)
        return dataset
    root = Path(tempfile.mkdtemp(prefix="loading-"))
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    ids = [f"p{i}" for i in range(IMAGES)]
    for i, image_id in enumerate(ids):
        Image.fromarray(photo(i)).save(root / f"JPEGImages/{image_id}.jpg", quality=90)
        mask = np.zeros(SIZE, np.uint8)
        mask[60 + 4 * i : 280, 80 : 300 + 5 * i] = 1 + i % 3
        Image.fromarray(mask).save(root / f"SegmentationClass/{image_id}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{i}\n" for i in ids))
    (root / "ImageSets/Segmentation/val.txt").write_text("v\n")
    Image.fromarray(photo(99)).save(root / "JPEGImages/v.jpg")
    Image.fromarray(mask).save(root / "SegmentationClass/v.png")
    (root / "classes.txt").write_text("background\na\nb\nc\n")
    dataset = open_dataset("folder", root=str(root))
    assert isinstance(dataset, FileDataset)
    return dataset


def _ids(dataset: FileDataset) -> tuple[str, ...]:
    return dataset.ids("train")[:IMAGES]


def _plain_batch(dataset: FileDataset, step: int, names: tuple[str, ...], crop: int) -> list[Tensor]:
    """The field's batch of the images and with the random numbers that ours has at this step."""
    ids = [_ids(dataset)[i] for i in batch_indices(IMAGES, 0, step, BATCH)]
    files = [dataset.image_path(i) for i in ids], [dataset.mask_path(i) for i in ids]
    return plain.batch(*files, len(names), crop, ViewKnobs(), MEAN, STD, [image_rng(0, step, i) for i in ids])


def same(one: Sequence[Any], other: Sequence[Any]) -> str:
    """Compares arrays or batches of tensors. Raises AssertionError."""
    for i, (a, b) in enumerate(zip(one, other, strict=True)):
        pairs = [(a, b)] if isinstance(a, np.ndarray) else zip(a, b, strict=True)
        for part, (left, right) in enumerate(pairs):
            assert np.array_equal(np.asarray(left), np.asarray(right)), f"number {i} differs in part {part}"
    return "all bytes equal"


@functools.cache
def warm() -> FileDataset:
    """The dataset with its images and labels in memory, and hue tables made as after a run's first hundred views."""
    colour.HUES.worth_it(colour.HueTables.BREAK_EVEN)
    colour.HUES.shift(Image.new("RGB", (1, 1)), 0)
    dataset = folder()
    for image_id in _ids(dataset):
        dataset.image(image_id), dataset.mask(image_id)
    return dataset


def cold() -> FileDataset:
    """The dataset with nothing in memory but what it knows of its files."""
    return type(warm())(warm().layout, warm().class_names)  # type: ignore[call-arg]


def _each(read: Callable[[FileDataset, str], Any]) -> Callable[[], list[Any]]:
    return lambda: [read(warm(), image_id) for image_id in _ids(warm())]


def _walked(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The array after every byte of it was read: handing it out alone costs nothing."""
    np.copyto(_SINK[: array.size].reshape(array.shape), array)
    return array


def _files(name: str, reference: Callable[..., Any], ours: Callable[..., Any], goal: float, size: str) -> Case:
    """A case of single images or labels: both sides get the dataset and an id."""
    pair = _each(reference), _each(ours)
    return Case(
        name, *pair, lambda: same(pair[0](), pair[1]()), goal, same, warm, f"{IMAGES} files of {size}", images=IMAGES
    )


def _batches(
    name: str, dataset: Callable[[], FileDataset], names: tuple[str, ...], crop: int, steps: int, goal: float | None
) -> Case:
    """A case of training batches with these views."""
    views = CropViews(names=names, crop=crop, knobs=ViewKnobs(), mean=MEAN, std=STD)

    def theirs() -> list[list[Tensor]]:
        return [_plain_batch(warm(), step, names, crop) for step in range(steps)]

    def ours() -> list[list[Tensor]]:
        data = dataset()
        loader = Loader(data, _ids(data), views, "masks", seed=0, batch=BATCH, group=BATCH, total_steps=steps)
        return [[*made.views.values(), *([] if made.label_BHW is None else [made.label_BHW])] for (made,) in loader]

    count = BATCH * steps
    unit = f"{count} images, {len(names)} of {crop} px each"
    return Case(name, theirs, ours, lambda: same(theirs(), ours()), goal, same, warm, unit, images=count)


def cases(quick: bool) -> list[Case]:
    """Images and labels from files and from memory, batches of one view and two; quick: views of 96 pixels.

    Goals are those of docs/benchmarks.md where the bytes stay equal.
    """
    crop, steps = (96, 1) if quick else (448, IMAGES // BATCH)
    height, width = folder().size(_ids(folder())[0])
    size = f"{width}x{height}"
    one, two = ("view1",), ("view1", "view2")
    made = [
        _files("decode", _plain_image, lambda d, i: read_image(d.image_path(i)), 1.6, size),
        _files("image in memory", _plain_image, lambda d, i: _walked(d.image(i)), 13, size),
        _files("label in memory", _plain_label, lambda d, i: _walked(d.mask(i)), 12, size),
        _batches("batch, first epoch", cold, one, crop, steps, 1.1),
        _batches("batch, later epochs", warm, one, crop, steps, 1.3),
        _batches("two views, first epoch", cold, two, crop, steps, None),
        _batches("two views, later epochs", warm, two, crop, steps, None),
    ]
    return [replace(case, goal=None) for case in made] if quick else made


def _plain_image(dataset: FileDataset, image_id: str) -> NDArray[np.uint8]:
    return np.asarray(plain.read(dataset.image_path(image_id)))


def _plain_label(dataset: FileDataset, image_id: str) -> NDArray[np.uint8]:
    return np.array(Image.open(dataset.mask_path(image_id)))
