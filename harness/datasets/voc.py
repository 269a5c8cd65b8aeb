"""PASCAL VOC 2012 with SBD's masks: train_aug 10,582, val 1,449, test 1,456, 21 classes (operators.md A14)."""

from __future__ import annotations

from pathlib import Path

from harness.api.vocabulary import IGNORE
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.files import KnownDataset
from harness.datasets.disk.layout import (
    IMAGES,
    LISTS,
    Layout,
    Survey,
    begin,
    below,
    named_folder,
    other_folders,
)
from harness.datasets.disk.looking import illegal_labels
from harness.datasets.io.absent import missing
from harness.datasets.io.colours import COLOURS
from harness.datasets.io.images import IMAGE_SUFFIXES, MASK_SUFFIXES, some_of
from harness.datasets.io.listing import (
    disjoint,
    field_id,
    files_of,
    find_list,
    judge_count,
    read_ids,
)
from harness.datasets.io.palettes import misplaced
from harness.errors import Problem

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
SIZES = {"train": 10582, "val": 1449, "test": 1456}
OTHER_LISTS = {
    1464: "VOC's own train list, without SBD",
    2913: "VOC's own trainval list",
    8498: "SBD's train list",
    11355: "SBD's train and val lists",
    12031: "train_aug and val together",
}
"""Sizes of lists that are taken for train_aug by mistake."""
MERGED, PLAIN = "SegmentationClassAug", "SegmentationClass"
DEVKIT = ("", "VOC2012", "VOCdevkit/VOC2012")
"""Where the data lies below `data.root`."""
LIST_FOLDERS = (
    LISTS,
    "ImageSets/SegmentationAug",
    "splits/pascal",
    "splits",
    "datasets/voc",
    "voc12",
    "voc",
    "lists",
    "",
)
OWN_TRAIN = 1464
"""Images of VOC's own list `train`, without SBD's."""
LIST_NAMES = {"train": ("train_aug", "trainaug", "train"), "val": ("val",), "test": ("test",)}
LIST_FIX = {
    "train": f"write {LISTS}/train_aug.txt: every id of {MERGED} that is not in val.txt (10,582), one a line; most "
    "repositories of the field bring the list, for instance datasets/voc/train_aug.txt",
    "val": f"take {LISTS}/val.txt from VOCtrainval_11-May-2012.tar (1,449 ids)",
    "test": f"take {LISTS}/test.txt from the test archive of VOC 2012 (1,456 ids)",
}
MERGE_FIX = (
    f"download SegmentationClassAug.zip (SBD's masks in VOC's numbering) and unzip it beside {PLAIN}; docs/data.md, voc"
)


def open(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Voc:
    """Open VOC 2012 below `root`, whatever the layout. Raises BadInput with everything that is wrong."""
    return survey(root=root, masks=masks, classes=classes).opened_as(Voc)


def survey(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Survey:
    """As `open`, but what can be read is there beside everything that is wrong."""
    found, base = begin(
        root,
        "VOCdevkit/VOC2012",
        DEVKIT,
        lambda place: (place / IMAGES).is_dir(),
        classes=(classes, "voc has its own 21 class names"),
    )
    if base is None:
        return found
    lists, official = _lists(base, found)
    image_files = files_of(base / IMAGES, IMAGE_SUFFIXES, found.errors, "unpack VOCtrainval_11-May-2012.tar there")
    if image_files is not None and "test" in lists and not set(lists["test"]) & set(image_files):
        found.warnings.append(
            Problem(str(base / IMAGES), "no image of test.txt is there: split left out", "unpack the test archive")
        )
        del lists["test"]
    folder = masks or (MERGED if (base / MERGED).is_dir() or not (base / PLAIN).is_dir() else PLAIN)
    mask_files: dict[str, str] | None = None
    if named_folder(base, masks, found.errors):
        fix = MERGE_FIX if folder == MERGED else other_folders(base)
        mask_files = files_of(base / folder, MASK_SUFFIXES, found.errors, fix)
    found.layout = f"{base.name} with {folder}"
    every = [image_id for ids in lists.values() for image_id in ids]
    if image_files is not None:
        missing(every, image_files, base / IMAGES, "image", found.errors)
    has_masks = dict.fromkeys(lists, True)
    if mask_files is not None:
        _judge_masks(base / folder, lists, mask_files, found)
        if "test" in lists:
            has_masks["test"] = not set(lists["test"]).isdisjoint(mask_files)
            if has_masks["test"]:
                missing(lists["test"], mask_files, base / folder, "mask (test.txt)", found.errors)
    layout = Layout(
        base,
        folder,
        CLASSES,
        lists,
        has_masks,
        below(IMAGES, image_files or {}, every),
        below(folder, mask_files or {}, every),
        found.layout,
    )
    found.dataset = Voc(layout, official, _quoted(base, lists.get("train", ())))
    return found


def _quoted(base: Path, train: tuple[str, ...]) -> tuple[str, ...]:
    """Those of VOC's own `train`, on which papers score masks, never SBD's; none where its list is not there."""
    path = find_list(base, LIST_FOLDERS, ("train",), OWN_TRAIN)
    ids = set(read_ids(path, path.parent, [], field_id)) if path is not None else set()
    return tuple(i for i in train if i in ids) if len(ids) <= OWN_TRAIN else ()


class Voc(KnownDataset):
    """VOC 2012."""

    family = "voc"

    def __init__(self, layout: Layout, official: bool, quoted: tuple[str, ...]):
        super().__init__(layout, official)
        self.quoted = frozenset(quoted)

    def quoted_train(self) -> tuple[str, ...]:
        """Of VOC's own `train`, 1,464 images."""
        return tuple(i for i in self.ids("train") if i in self.quoted and i in self.layout.masks)

    def palette(self, ids: tuple[str, ...]) -> dict[int, tuple[int, int, int]]:
        """VOC's colours, also where the masks of a merge are grey."""
        kept = range(len(CLASSES)) if self.choice is None else self.choice.kept
        return {new: COLOURS[label] for new, label in enumerate(kept)}

    def judge_mask(self, image_id: str, mask: MaskFacts) -> tuple[list[Problem], list[Problem]]:
        """Errors and warnings on labels, and on a palette that says something else than they do."""
        path = self.mask_part(image_id)[0]
        errors, warnings = illegal_labels(path, mask, CLASSES, "number the classes 0..20 in VOC's order, 255 = ignore")
        if errors or not mask.colours:
            return errors, warnings
        found = misplaced(mask, dict(enumerate(COLOURS)), CLASSES)
        if found is not None:
            fix = "the numbers are those of a colour table made anew; convert colours to VOC's numbers"
            errors.append(Problem(str(path), found, fix))
        return errors, warnings


def _lists(base: Path, found: Survey) -> tuple[dict[str, tuple[str, ...]], bool]:
    """The lists of the splits, and whether they are the official ones."""
    lists: dict[str, tuple[str, ...]] = {}
    official = True
    for split, names in LIST_NAMES.items():
        path = find_list(base, LIST_FOLDERS, names, SIZES[split])
        if path is None:
            if split != "test":
                where = str(base / LISTS / f"{names[0]}.txt")
                found.errors.append(Problem(where, "there is no such list", LIST_FIX[split]))
            continue
        lists[split] = read_ids(path, path.parent, found.errors, field_id)
        count = len(lists[split])
        if not count:
            continue
        if count != SIZES[split]:
            official = False
            known = dict(OTHER_LISTS) if split == "train" else {}
            if path == base / LISTS / "train.txt" and (base / MERGED).is_dir():
                known[count] = OTHER_LISTS[1464]
            judge_count(str(path), split, count, SIZES[split], known, LIST_FIX[split], found.errors, found.warnings)
    disjoint(lists, str(base / LISTS), found.errors)
    return lists, official


def _judge_masks(folder: Path, lists: dict[str, tuple[str, ...]], mask_files: dict[str, str], found: Survey) -> None:
    """The merge of SBD's masks: whether every training and validation id has one."""
    known = set(mask_files)
    train = [image_id for image_id in lists.get("train", ()) if image_id not in known]
    if train and folder.name in (PLAIN, MERGED):
        sizes = {split: len(lists.get(split, ())) for split in ("train", "val")}
        kind = "plain VOC SegmentationClass" if folder.name == PLAIN else "a merge that is not complete"
        found.errors.append(
            Problem(
                str(folder),
                f"expected {sum(sizes.values()):,} masks ({sizes['train']:,} train_aug + {sizes['val']:,} val), found "
                f"{len(known):,}: that is {kind}, SBD's masks are missing for {len(train):,} ids ({some_of(train, 3)})",
                MERGE_FIX,
            )
        )
    elif train:
        missing(train, known, folder, "mask (train list)", found.errors)
    missing(lists.get("val", ()), known, folder, "mask (val.txt)", found.errors)


__all__ = ["CLASSES", "COLOURS", "IGNORE", "SIZES", "Voc", "open", "survey"]
