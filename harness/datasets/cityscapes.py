"""Cityscapes, fine annotations: train 2,975, val 500, test 1,525 without masks; 19 trainIds, no background."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.datasets.disk import facts
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.files import KnownDataset
from harness.datasets.disk.layout import Layout, Survey, begin, is_official
from harness.datasets.disk.looking import illegal_labels
from harness.datasets.io.absent import missing
from harness.datasets.io.images import read_mask, some_of
from harness.datasets.io.listing import (
    disjoint,
    files_of,
    find_list,
    judge_count,
    read_ids,
    subfolders,
)
from harness.datasets.weak.files import WeakFiles
from harness.errors import BadInput, Problem

CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The labelId of each trainId; all others are ignored."""
TRAIN_IDS = np.full(256, IGNORE, np.uint8)
TRAIN_IDS[list(LABEL_IDS)] = np.arange(len(LABEL_IDS), dtype=np.uint8)
SIZES = {"train": 2975, "val": 500, "test": 1525}
IMAGES, MASKS = "leftImg8bit", "gtFine"
COARSE, COARSE_FOLDER = "coarse", "gtCoarse"
BELOW = ("", "cityscapes", "Cityscapes", "CityScapes")
LIST_FOLDERS = ("splits/cityscapes", "splits", "lists", "ImageSets", "")
TRAIN_ID_FILE, LABEL_ID_FILE = "_labelTrainIds.png", "_labelIds.png"
_ID = re.compile(r"([A-Za-z-]+_\d{6}_\d{6})(?:_(?:leftImg8bit|gt(?:Fine|Coarse)_.*))?")
_IMAGE_FIX = "unpack leftImg8bit_trainvaltest.zip there"
_COARSE_FIX = "unpack gtCoarse.zip (gtCoarse_trainextra is not needed) beside leftImg8bit"
_MASK_FIX = (
    "unpack gtFine_trainvaltest.zip (or gtCoarse.zip) there; *_labelTrainIds.png (made by cityscapesscripts' "
    "csCreateTrainIdLabelImgs) or *_labelIds.png are read"
)


def open(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Cityscapes:
    """Open Cityscapes below `root`; `masks` is the folder of annotations, gtFine by default.

    Raises BadInput with everything that is wrong.
    """
    return survey(root=root, masks=masks, classes=classes).opened_as(Cityscapes)


def survey(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Survey:
    """As `open`, but what can be read is there beside everything that is wrong."""
    found, base = begin(
        root,
        f"{IMAGES} and {MASKS}",
        BELOW,
        lambda place: (place / IMAGES).is_dir(),
        classes=(classes, "cityscapes has its own 19 class names"),
    )
    folder = masks or MASKS
    if not re.fullmatch(r"[\w-]+", folder):
        found.errors.append(Problem("data.masks", f"{masks!r}", "the name of a folder beside leftImg8bit"))
        return found
    if base is None:
        return found
    lists: dict[str, tuple[str, ...]] = {}
    images: dict[str, str] = {}
    mask_paths: dict[str, str] = {}
    kinds: set[str] = set()
    for split in ("train", "val", "test"):
        here = _by_city(base, f"{IMAGES}/{split}", "_leftImg8bit.png", found, split != "test", _IMAGE_FIX)
        path = find_list(base, LIST_FOLDERS, (split,), SIZES[split])
        if path is not None:
            lists[split] = read_ids(path, path.parent, found.errors, city_id)
            missing(lists[split], here, base / IMAGES / split, "image", found.errors)
        elif here:
            lists[split] = tuple(sorted(here))
        if split not in lists:
            continue
        where = str(path or base / IMAGES / split)
        judge_count(where, split, len(lists[split]), SIZES[split], {}, _IMAGE_FIX, found.errors, found.warnings)
        images |= {i: here[i] for i in lists[split] if i in here}
        if split == "test":
            continue  # what gtFine holds for test is a dummy
        masks_here = {}
        # Files of gtCoarse bear its name; folders that others made hold copies under the name of gtFine.
        for suffix, kind in product((TRAIN_ID_FILE, LABEL_ID_FILE), dict.fromkeys((folder, MASKS))):
            masks_here = _by_city(base, f"{folder}/{split}", f"_{kind}{suffix}", found, False, _MASK_FIX)
            if masks_here:
                kinds.add(suffix)
                break
        if not (base / folder / split).is_dir():
            found.errors.append(Problem(str(base / folder / split), "there is no such folder", _MASK_FIX))
        else:
            missing(lists[split], masks_here, base / folder / split, f"mask ({split})", found.errors)
        mask_paths |= {i: masks_here[i] for i in lists[split] if i in masks_here}
    disjoint(lists, str(base), found.errors)
    official = is_official(lists, SIZES)
    found.layout = f"{base.name} with {' and '.join(sorted(kinds)) or 'no masks'}"
    has_masks = {split: split != "test" for split in lists}
    layout = Layout(base, folder, CLASSES, lists, has_masks, images, mask_paths, found.layout)
    found.dataset = Cityscapes(layout, official)
    return found


class Cityscapes(KnownDataset):
    """Cityscapes. Ids read `aachen_000000_000019`."""

    family = "cityscapes"
    has_background = False

    def read_mask(self, image_id: str) -> NDArray[np.uint8]:
        """trainIds (H,W), also where the file holds labelIds."""
        path = self.mask_part(image_id)[0]
        mask_HW = read_mask(path)
        return TRAIN_IDS[mask_HW] if path.name.endswith(LABEL_ID_FILE) else mask_HW

    def weak_files(self, kind: str) -> WeakFiles | None:
        """As of any dataset; `coarse` are the coarse annotations of the training images, never made from fine ones."""
        if kind != COARSE:
            return super().weak_files(kind)
        if COARSE not in self._weak_files:
            self._weak_files[COARSE] = _coarse_files(self.layout.root)
        return self._weak_files[COARSE]

    def mask_facts(self, image_id: str) -> MaskFacts:
        """Facts of the trainIds of a mask."""
        path, part = self.mask_part(image_id)
        return facts.remembered(path, part, MaskFacts, lambda: facts.facts_of(self.read_mask(image_id)))

    def judge_mask(self, image_id: str, mask: MaskFacts) -> tuple[list[Problem], list[Problem]]:
        """Errors and warnings on labels: labelIds under the name of trainIds are named."""
        hint = "the file holds labelIds (0..33): make *_labelTrainIds.png anew, or remove it and keep *_labelIds.png"
        return illegal_labels(self.mask_part(image_id)[0], mask, CLASSES, hint)


class CoarseLabels(WeakFiles):
    """gtCoarse: outlines that leave borders open; void is unlabelled."""

    def __init__(self, root: Path, files: dict[str, str]):
        super().__init__(COARSE, CLASSES)
        self.where, self.root, self.files = str(root / COARSE_FOLDER), root, files

    def covers(self, image_id: str) -> bool:
        return image_id in self.files

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        path = self.root / self.files[image_id]
        label_HW = read_mask(path)
        if path.name.endswith(LABEL_ID_FILE):
            label_HW = TRAIN_IDS[label_HW]
        illegal = np.flatnonzero(np.bincount(label_HW.ravel(), minlength=256)[len(CLASSES) : IGNORE]) + len(CLASSES)
        if label_HW.shape != size or len(illegal):
            found = f"labels {some_of(map(str, illegal.tolist()))}" if len(illegal) else f"{label_HW.shape}, not {size}"
            raise BadInput(Problem(str(path), found, f"trainIds 0..18 and 255 at the image's size: {_COARSE_FIX}"))
        return label_HW


def _coarse_files(root: Path) -> CoarseLabels:
    """Raises BadInput where there are none: fine masks are no coarse labels."""
    found = Survey()
    for suffix in (TRAIN_ID_FILE, LABEL_ID_FILE):
        files = _by_city(root, f"{COARSE_FOLDER}/train", f"_{COARSE_FOLDER}{suffix}", found, False, _COARSE_FIX)
        if files:
            return CoarseLabels(root, files)
    fix = f"{_COARSE_FIX}, or other labels"
    raise BadInput([*found.errors, Problem(str(root / COARSE_FOLDER / "train"), "no coarse annotations there", fix)])


def city_id(line: str) -> str | None:
    """The id on a line of a list: of the file in its first column, in whatever folder."""
    first = line.split()[0] if line.split() else ""
    if ".." in first.split("/"):
        return None
    match = _ID.fullmatch(first.rpartition("/")[2].removesuffix(".png"))
    return match[1] if match else None


def _by_city(base: Path, folder: str, suffix: str, found: Survey, needed: bool, fix: str) -> dict[str, str]:
    """Path relative to `base` of every file of a split, by id."""
    files: dict[str, str] = {}
    if not (base / folder).is_dir():
        if needed:
            found.errors.append(Problem(str(base / folder), "there is no such folder", fix))
        return files
    for city in subfolders(base / folder, found.errors):
        own = files_of(city, (suffix.lower(),), found.errors, fix, city_id) or {}
        files |= {image_id: f"{folder}/{city.name}/{name}" for image_id, name in own.items()}
    if needed and not files:
        found.errors.append(Problem(str(base / folder), f"no city folders with *{suffix} files", fix))
    return files
