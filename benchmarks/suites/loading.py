"""Reading images and making training batches, next to the field's usual loader; every byte is compared first."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import Case
from benchmarks.reference import loading as plain
from harness.datasets import colour, open_dataset
from harness.datasets.files import FileDataset
from harness.datasets.images import read_image
from harness.datasets.loading import Loader, batch_indices, image_rng
from methods.parts.knobs import ViewKnobs
from methods.parts.views import CropViews

SIZE = (375, 500)
IMAGES, BATCH = 32, 8
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
    """A VOC-layout folder of a few JPEGs (quality 90) in a temporary place."""
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


def _plain_batch(dataset: FileDataset, step: int, crop: int) -> tuple[Tensor, Tensor]:
    """The field's batch of the images and with the random numbers that ours has at this step."""
    ids = [dataset.ids("train")[i] for i in batch_indices(IMAGES, 0, step, BATCH)]
    files = [dataset.image_path(i) for i in ids], [dataset.mask_path(i) for i in ids]
    return plain.batch(*files, crop, ViewKnobs(), MEAN, STD, [image_rng(0, step, i) for i in ids])


def cases(quick: bool) -> list[Case]:
    """Decoding, one batch from files, and one batch of images that are in memory; quick: views of 96 pixels.

    Hue tables are made beforehand, as they are after the first few hundred views of a run.
    """
    crop, steps = (96, 1) if quick else (448, IMAGES // BATCH)
    views = CropViews(names=("view1",), crop=crop, knobs=ViewKnobs(), mean=MEAN, std=STD)

    @functools.cache
    def warm() -> FileDataset:
        colour.HUES.worth_it(colour.HueTables.BREAK_EVEN)
        colour.HUES.shift(Image.new("RGB", (1, 1)), 0)
        return folder()

    def reread() -> FileDataset:
        """The dataset with nothing in memory but what it knows of its files."""
        return type(warm())(warm().layout, warm().class_names)  # type: ignore[call-arg]

    def ours(dataset: FileDataset) -> list[tuple[Tensor, Tensor | None]]:
        ids = dataset.ids("train")
        loader = Loader(dataset, ids, views, "masks", seed=0, batch=BATCH, group=BATCH, total_steps=steps)
        return [(made.views["view1"], made.label_BHW) for (made,) in loader]

    def theirs() -> list[tuple[Tensor, Tensor | None]]:
        dataset = warm()
        return [_plain_batch(dataset, step, crop) for step in range(steps)]

    def same(one: Any, other: Any) -> str:
        for (images, labels), (others, other_labels) in zip(one, other, strict=True):
            assert torch.equal(images, others), "the images differ"
            assert torch.equal(labels, other_labels), "the labels differ"
        return "all bytes equal"

    def paths() -> list[Path]:
        return [warm().image_path(i) for i in warm().ids("train")]

    def decoded() -> str:
        for path in paths():
            assert np.array_equal(read_image(path), np.asarray(plain.read(path))), path.name
        return "all bytes equal"

    def case(name: str, dataset: Any, goal: float) -> Case:
        return Case(
            name,
            theirs,
            lambda: ours(dataset()),
            lambda: same(theirs(), ours(dataset())),
            None if quick else goal,
            agree=same,
            prepare=warm,
            unit=f"{BATCH * steps} images of {SIZE[1]}x{SIZE[0]} to {crop}",
        )

    return [
        Case(
            "decode",
            lambda: [np.asarray(plain.read(path)) for path in paths()],
            lambda: [read_image(path) for path in paths()],
            decoded,
            None if quick else 1.2,
            prepare=warm,
            unit=f"{IMAGES} images of {SIZE[1]}x{SIZE[0]}",
        ),
        case("batch, first epoch", reread, 1.1),
        case("batch, later epochs", warm, 1.3),
    ]
