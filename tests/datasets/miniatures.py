"""Miniatures of the field's datasets in their exact layouts: a handful of small pictures each, generated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets.voc import CLASSES as VOC_CLASSES
from harness.datasets.voc import COLOURS

SIZE = (24, 32)
"""Height and width of every picture, pixels."""
VOC_TRAIN = tuple(f"2007_{number:06d}" for number in range(1, 5)) + tuple(f"2008_{n:06d}" for n in range(1, 7))
VOC_PLAIN_TRAIN = VOC_TRAIN[:4]
"""Those that VOC itself has masks for; the others are SBD's."""
VOC_VAL = tuple(f"2009_{number:06d}" for number in range(1, 5))
VOC_TEST = ("2008_000900", "2008_000901")
VOC_SIZES = {"train": len(VOC_TRAIN), "val": len(VOC_VAL), "test": len(VOC_TEST)}


def picture(number: int) -> NDArray[np.uint8]:
    """Noise pixels (H,W,3) of picture `number`."""
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def objects(labels: Sequence[int], border: int | None = 255, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A mask with one rectangle a label, side by side on background 0, each with a border of one pixel."""
    mask = np.zeros(size, np.uint8)
    width = size[1] // len(labels)
    for i, label in enumerate(labels):
        rows, columns = slice(3, size[0] - 5), slice(i * width + 1, (i + 1) * width - 1)
        mask[rows, columns] = label if border is None else border
        mask[rows.start + 1 : rows.stop - 1, columns.start + 1 : columns.stop - 1] = label
    return mask


def save_picture(path: Path, number: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number)).save(path, **({"quality": 90} if path.suffix == ".jpg" else {}), **options)


def save_mask(path: Path, mask_HW: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]] | None = COLOURS) -> None:
    """A palette PNG in VOC's colours, or a grey one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask_HW)
    if colours is not None:
        image.putpalette([value for colour in colours for value in colour])
    image.save(path)


def save_list(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def voc_labels(image_id: str) -> tuple[int, ...]:
    """The classes of a picture: training pictures show all twenty between them."""
    if image_id in VOC_TRAIN:
        at = VOC_TRAIN.index(image_id)
        return (2 * at + 1, 2 * at + 2)
    return (VOC_VAL.index(image_id) + 1, 15)


def voc(root: Path) -> Path:
    """`VOCdevkit/VOC2012` with SBD merged in, as ToCo, FSR, BRNF and FSAE print it; returns the folder above."""
    base = root / "VOCdevkit" / "VOC2012"
    for number, image_id in enumerate((*VOC_TRAIN, *VOC_VAL, *VOC_TEST)):
        save_picture(base / f"JPEGImages/{image_id}.jpg", number)
        if image_id in VOC_TEST:
            continue
        labels = voc_labels(image_id)
        own = image_id in VOC_PLAIN_TRAIN or image_id in VOC_VAL
        mask = objects(labels, 255 if own else None)
        # SBD's half of the merge is grey and without borders, VOC's half as VOC ships it.
        save_mask(base / f"SegmentationClassAug/{image_id}.png", mask, COLOURS if own else None)
        if own:
            save_mask(base / f"SegmentationClass/{image_id}.png", mask)
            instances = np.where((mask > 0) & (mask < 255), 1 + (np.arange(SIZE[1]) >= SIZE[1] // 2), mask)
            save_mask(base / f"SegmentationObject/{image_id}.png", instances.astype(np.uint8))
        annotation(base / f"Annotations/{image_id}.xml", image_id, [VOC_CLASSES[label] for label in labels])
    lists = base / "ImageSets/Segmentation"
    save_list(lists / "train.txt", VOC_PLAIN_TRAIN)
    save_list(lists / "trainval.txt", sorted((*VOC_PLAIN_TRAIN, *VOC_VAL)))
    save_list(lists / "val.txt", VOC_VAL)
    save_list(lists / "test.txt", VOC_TEST)
    save_list(lists / "train_aug.txt", VOC_TRAIN)
    return root / "VOCdevkit"


def agmm_voc(root: Path) -> Path:
    """AGMM's folder: its own two-column lists, and sparse labels where its code looks for them (agmm.md 7)."""
    for number, image_id in enumerate((*VOC_TRAIN, *VOC_VAL)):
        save_picture(root / f"JPEGImages/{image_id}.jpg", number)
        mask = objects(voc_labels(image_id))
        save_mask(root / f"SegmentationClassAug/{image_id}.png", mask)
        if image_id in VOC_TRAIN:
            save_mask(root / f"point/segcls/{image_id}.png", sparse(mask, 8, 3), None)
            save_mask(root / f"scribble/seginst/{image_id}.png", sparse(mask, 1, 3), None)
    for split, ids in (("train", VOC_TRAIN), ("val", VOC_VAL)):
        save_list(root / f"splits/pascal/{split}.txt", [f"{i}.jpg {i}.png" for i in ids])
    return root


def sparse(mask_HW: NDArray[np.uint8], every: int, row: int, unlabelled: int = 255) -> NDArray[np.uint8]:
    """A mask with labels only on every nth column of two rows."""
    out = np.full_like(mask_HW, unlabelled)
    for y in (row - 2, mask_HW.shape[0] // 2):
        out[y, ::every] = mask_HW[y, ::every]
    out[out == 255] = unlabelled
    return out


def annotation(path: Path, name: str, classes: Sequence[str]) -> None:
    """A VOC XML with one box a class."""
    boxes = "".join(
        f"<object><name>{c}</name><difficult>0</difficult><bndbox><xmin>{2 + 9 * i}</xmin><ymin>4</ymin>"
        f"<xmax>{8 + 9 * i}</xmax><ymax>15</ymax></bndbox></object>"
        for i, c in enumerate(classes)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename><size><width>{SIZE[1]}</width>"
        f"<height>{SIZE[0]}</height><depth>3</depth></size><segmented>1</segmented>{boxes}</annotation>"
    )


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
