"""COCO 2014: train 82,081 and val 40,137 annotated images, 81 classes, in every layout that the field prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.datasets.coco.conversion import convert, converted
from harness.datasets.coco.names import CLASSES, OTHER_SIZES, SIZES, VAL_PART_SIZES, YEAR, image_name
from harness.datasets.disk.conversion import conversion_warnings
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.files import KnownDataset
from harness.datasets.disk.layout import LISTS, Layout, Survey, begin, is_official
from harness.datasets.disk.looking import illegal_labels
from harness.datasets.io.absent import missing
from harness.datasets.io.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from harness.datasets.io.listing import (
    disjoint,
    field_id,
    files_of,
    find_list,
    is_plain,
    judge_count,
    read_ids,
)
from harness.errors import BadInput, Problem

MASKS = "SegmentationClass"
BELOW = ("", "MSCOCO", "COCO", "COCO2014", "coco", "coco2014")
"""Where the data lies below `data.root`."""
IMAGE_FOLDERS = {
    "train": ("JPEGImages/train2014", "JPEGImages/train", "train2014", "images/train2014", "train/image"),
    "val": ("JPEGImages/val2014", "JPEGImages/val", "val2014", "images/val2014", "validation/image", "val/image"),
}
LIST_FOLDERS = (LISTS, "ImageSets", "splits/coco", "splits", "datasets/coco", "coco", "lists", "")
IMAGE_FIX = "unpack train2014.zip and val2014.zip there"


def open(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Coco:
    """Open COCO 2014 below `root`, whatever the layout; without masks they are made from the instances JSON, once.

    Raises BadInput with everything that is wrong.
    """
    return survey(root=root, masks=masks, classes=classes).opened_as(Coco)


def survey(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Survey:
    """As `open`, but what can be read is there beside everything that is wrong."""
    found, base = begin(
        root,
        "JPEGImages/train2014 and SegmentationClass/train2014",
        BELOW,
        lambda place: _part(place, IMAGE_FOLDERS["train"]) is not None,
        classes=(classes, "coco has its own 81 class names"),
    )
    if masks is not None and not is_plain(masks):
        found.errors.append(Problem("data.masks", f"{masks!r}", "the name of a folder, for instance SegmentationClass"))
        return found
    if base is None:
        return found
    lists: dict[str, tuple[str, ...]] = {}
    images: dict[str, str] = {}
    mask_paths: dict[str, str] = {}
    where = []
    for split in ("train", "val"):
        folder = _part(base, IMAGE_FOLDERS[split])
        if folder is None:
            path = str(base / IMAGE_FOLDERS[split][0])
            found.errors.append(Problem(path, "there is no such folder, nor another of its names", IMAGE_FIX))
            continue
        where.append(folder)
        image_files = (
            files_of(base / folder, IMAGE_SUFFIXES, found.errors, IMAGE_FIX, partial(image_name, split=split)) or {}
        )
        mask_folder, mask_files = _masks(base, folder, split, masks or MASKS, found)
        lists[split] = _ids(base, split, image_files, mask_files, found)
        missing(lists[split], image_files, base / folder, "image", found.errors)
        if mask_files is not None:
            missing(lists[split], mask_files, base / mask_folder, f"mask ({split})", found.errors)
        listed = set(lists[split])
        images |= {i: f"{folder}/{name}" for i, name in image_files.items() if i in listed}
        mask_paths |= {i: f"{mask_folder}/{name}" for i, name in (mask_files or {}).items() if i in listed}
    disjoint(lists, str(base), found.errors)
    if "val" in lists:
        _val_part(base, lists, found)
    official = is_official(lists, SIZES)
    found.layout = f"{base.name} with {' and '.join(where) or 'no images'}"
    layout = Layout(base, masks or MASKS, CLASSES, lists, dict.fromkeys(lists, True), images, mask_paths, found.layout)
    found.dataset = Coco(layout, official)
    return found


class Coco(KnownDataset):
    """COCO 2014. Ids read COCO_train2014_000000000009 in every layout."""

    family = "coco"

    def judge_mask(self, image_id: str, mask: MaskFacts) -> tuple[list[Problem], list[Problem]]:
        """Errors and warnings on labels: category ids and COCO-Stuff are named as what they are."""
        above = [label for label in mask.labels if len(CLASSES) <= label < 255]
        hint = "number the classes 0..80 in COCO's order, 255 = ignore"
        if above:
            kind = "category ids (1..90 with gaps)" if max(above) <= 90 else "COCO-Stuff labels"
            hint = (
                f"these look like {kind}; remove the masks and put instances_*2014.json into annotations/: they are "
                "made anew with the classes 1..80"
            )
        return illegal_labels(self.mask_part(image_id)[0], mask, CLASSES, hint)


def _part(base: Path, folders: Sequence[str]) -> str | None:
    return next((folder for folder in folders if (base / folder).is_dir()), None)


def _masks(base: Path, images: str, split: str, folder: str, found: Survey) -> tuple[str, dict[str, str] | None]:
    """Folder of a split's masks and its files; made from the annotations where there are none."""
    parent, name = os.path.split(images)
    inside = f"{parent}/{'mask' if folder == MASKS else folder}" if name == "image" else f"{folder}/{name}"
    names = dict.fromkeys((inside, f"{folder}/{YEAR[split]}", f"{folder}/{split}", folder))
    target = next((n for n in names if _has_pngs(base / n)), None)
    instances = next(
        (p / f"instances_{YEAR[split]}.json" for p in (base / "annotations", base) if _has(p, split)), None
    )
    fix = f"put instances_{YEAR[split]}.json into {base / 'annotations'}: masks are made from it; docs/data.md, coco"
    if target is None and instances is None:
        found.errors.append(Problem(str(base / inside), f"neither masks of {split} nor annotations", fix))
        return inside, None
    source = instances or base / "annotations" / f"instances_{YEAR[split]}.json"
    try:
        if target is None or converted(source, base / target, split) is False:
            target = target or inside
            if instances is None:
                text = f"some of the masks that were made from {source.name} are gone, and so is that file"
                raise BadInput(Problem(str(base / target), text, fix))
            convert(instances, base / target, split)
        found.warnings += conversion_warnings(source, base / target)
    except BadInput as error:
        found.errors += error.problems
    if target is None or not (base / target).is_dir():
        return inside, None
    return target, files_of(base / target, MASK_SUFFIXES, found.errors, fix, partial(image_name, split=split))


def _has(folder: Path, split: str) -> bool:
    return (folder / f"instances_{YEAR[split]}.json").is_file()


def _has_pngs(folder: Path) -> bool:
    return folder.is_dir() and any(
        entry.name.lower().endswith(MASK_SUFFIXES) and not entry.name.startswith(".") for entry in os.scandir(folder)
    )


def _ids(
    base: Path, split: str, image_files: dict[str, str], mask_files: dict[str, str] | None, found: Survey
) -> tuple[str, ...]:
    """The list of a split, or without one the images that have a mask."""
    path = find_list(base, LIST_FOLDERS, (split, YEAR[split]), SIZES[split])
    fix = (
        f"write {LISTS}/{split}.txt: the {SIZES[split]:,} ids of images with at least one annotation, one a line "
        "(repositories of the field bring it as datasets/coco/" + split + ".txt), or let masks be made from the JSON"
    )
    if path is None:
        ids = tuple(sorted(set(mask_files or ()) & set(image_files)))
        where = str(base / LISTS / f"{split}.txt")
        if not ids:
            found.errors.append(Problem(where, "there is no such list, and no image with a mask", fix))
            return ids
    else:
        where = str(path)
        ids = _numbered(path, split, found)
    judge_count(where, split, len(ids), SIZES[split], OTHER_SIZES[split], fix, found.errors, found.warnings)
    return ids


def _val_part(base: Path, lists: dict[str, tuple[str, ...]], found: Survey) -> None:
    path = find_list(base, LIST_FOLDERS, ("val_part",))
    if path is None:
        return
    part = _numbered(path, "val_part", found)
    outside = set(part) - set(lists["val"])
    if outside:
        text = f"{len(outside)} ids are not in val: {', '.join(sorted(outside)[:3])}"
        found.errors.append(Problem(str(path), text, "take both lists from the same place"))
        return
    if len(part) not in VAL_PART_SIZES:
        text = f"{len(part):,} ids; {VAL_PART_SIZES[1]:,} in the list of the field"
        found.warnings.append(Problem(str(path), text, "take val_part.txt from a repository of the field"))
    if part:
        lists["val_part"] = part


def _numbered(path: Path, split: str, found: Survey) -> tuple[str, ...]:
    """Ids of a list whose lines name images in any of COCO's ways."""

    def parse(line: str) -> str | None:
        stem = field_id(line)
        return None if stem is None else image_name(stem, split)

    return read_ids(path, path.parent, found.errors, parse)


__all__ = ["CLASSES", "SIZES", "Coco", "open", "survey"]
