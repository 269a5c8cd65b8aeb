"""Miniature VOC-layout folders, generated, and the real photos that some tests can use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PALETTE = [value for i in range(256) for value in (i, (i * 7) % 256, (i * 31) % 256)]


def write_mask(path: Path, mask_HW: np.ndarray, palette: bool = True) -> None:
    image = Image.fromarray(mask_HW.astype(np.uint8))
    if palette:
        image.putpalette(PALETTE)
    image.save(path)


def make_folder(
    root: Path,
    lists: Mapping[str, Sequence[str]],
    *,
    classes: Sequence[str] | None = ("background", "cat", "dog"),
    size: tuple[int, int] = (24, 32),
    masks: str = "SegmentationClass",
) -> Path:
    """A folder in VOC layout: each image holds class 1 or 2 in turn (by its number), a 255 border, noise pixels."""
    for folder in ("JPEGImages", masks, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    number = 0
    for split, ids in lists.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{i}\n" for i in ids))
        for image_id in ids:
            rng = np.random.default_rng(number)
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "JPEGImages" / f"{image_id}.jpg", quality=90)
            mask = np.zeros(size, np.uint8)
            mask[4:14, 5:20] = 255
            mask[5:13, 6:19] = 1 + number % 2
            write_mask(root / masks / f"{image_id}.png", mask)
            number += 1
    if classes is not None:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return root


@pytest.fixture
def voc_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**changes: object) -> Path:
        lists = {"train": [f"a{i}" for i in range(12)], "val": ["v0", "v1", "v2"], "test": ["t0", "t1"]}
        return make_folder(tmp_path / "mini", **{"lists": lists, **changes})

    return make


@pytest.fixture
def mask_writer() -> Callable[..., None]:
    return write_mask


@pytest.fixture
def folder_maker() -> Callable[..., Path]:
    return make_folder


@pytest.fixture
def real_data() -> Path:
    where = os.environ.get("WSSS_REAL_DATA")
    if not where:
        pytest.skip("WSSS_REAL_DATA names no folder of real photos")
    return Path(where)
