"""What a dataset has on disk, and finding it in a VOC-layout folder without decoding a pixel."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness.api.dataset import Dataset
from harness.datasets.io.absent import missing
from harness.datasets.io.class_files import class_names
from harness.datasets.io.images import IMAGE_SUFFIXES, MASK_SUFFIXES, some_of
from harness.datasets.io.listing import disjoint, files_of, is_plain, read_ids, root_folder
from harness.errors import BadInput, Problem

D = TypeVar("D", bound=Dataset)
IMAGES = "JPEGImages"
MASKS = "SegmentationClass"
LISTS = "ImageSets/Segmentation"
SPLITS = ("train", "val", "test")
WORDS = ("data.root", "data.masks", "data.classes", "data.weak", "data.tags", "data.pseudo", "data.annotations")
"""Problems at these are of the command line, not of the data."""


@dataclass(frozen=True)
class Layout:
    """What a folder holds. File names are relative to the root."""

    root: Path
    mask_folder: str
    class_names: tuple[str, ...]
    """Empty when no file names them."""
    lists: dict[str, tuple[str, ...]]
    has_masks: dict[str, bool]
    images: dict[str, str]
    """Image file of each listed id that has one."""
    masks: dict[str, str]
    """Mask file of each listed id that has one."""
    name: str = "VOC layout"
    """Which layout it is, in words."""


@dataclass
class Survey:
    """What was found at a place: a dataset as far as it goes, and all that is wrong with its folders and lists."""

    dataset: Dataset | None = None
    layout: str = ""
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def opened(self) -> Dataset:
        """The dataset. Raises BadInput with every error."""
        if self.errors or self.dataset is None:
            raise BadInput(self.errors)
        return self.dataset

    def opened_as(self, kind: type[D]) -> D:
        """The dataset, of this class. Raises BadInput with every error."""
        dataset = self.opened()
        assert isinstance(dataset, kind)
        return dataset


def is_official(lists: Mapping[str, Collection[str]], sizes: Mapping[str, int]) -> bool:
    """Whether the lists of train and val have the sizes of the whole dataset's."""
    return all(len(lists.get(split, ())) == sizes[split] for split in ("train", "val"))


def begin(
    root: str | None, needs: str, below: Iterable[str], holds: Callable[[Path], bool], **refused: tuple[str | None, str]
) -> tuple[Survey, Path | None]:
    """A survey of a dataset with a layout of its own, and the folder below `root` that `holds` it, else `root` itself.

    `below` are the folders that archives and repositories make; `refused` are words that the dataset does not take,
    with what was given and what it has instead. Without a folder there is a problem, and nothing else to look at.
    """
    found = Survey()
    for word, (value, own) in refused.items():
        if value is not None:
            found.errors.append(Problem(f"data.{word}", own, f"leave data.{word} out"))
    given = root_folder(root, needs, found.errors)
    return found, None if given is None else next((given / name for name in below if holds(given / name)), given)


def told_apart(name: str, root: Path, official: bool) -> str:
    """The dataset's name in every table: a part of it, or other lists, bear their folder's name too."""
    return name if official else f"{name}:{root.name}"


def inspect(root: str | None, masks: str | None, classes: str | None, problems: list[Problem]) -> Layout | None:
    """The layout of a folder as far as it can be found; every problem of folders, lists, ids and names is added."""
    mask_folder = masks or MASKS
    base = root_folder(root, f"{IMAGES}, masks and {LISTS}", problems)
    if base is None:
        return None
    if deeper := next((folder for folder in _folders(base) if (folder / IMAGES).is_dir()), None):
        found = f"{base} holds no {IMAGES}; {deeper.relative_to(base)} in it does"
        problems.append(Problem("data.root", found, f"data.root={deeper}"))
        return None
    lists = listed(base, problems)
    image_files = files_of(base / IMAGES, IMAGE_SUFFIXES, problems, _images_fix(base))
    mask_files: dict[str, str] | None = None
    if named_folder(base, masks, problems):
        mask_files = files_of(base / mask_folder, MASK_SUFFIXES, problems, other_folders(base))
    names = class_names(base, mask_folder if is_plain(mask_folder) else "", classes, problems)
    every = [image_id for ids in lists.values() for image_id in ids]
    if image_files is not None:
        missing(every, image_files, base / IMAGES, "image", problems, official=False)
    has_masks = dict.fromkeys(lists, True)
    if mask_files is not None:
        for split, ids in lists.items():
            has_masks[split] = split == "train" or any(image_id in mask_files for image_id in ids)
            if has_masks[split]:
                missing(ids, mask_files, base / mask_folder, f"mask ({split}.txt)", problems, official=False)
    return Layout(
        base,
        mask_folder,
        names,
        lists,
        has_masks,
        below(IMAGES, image_files or {}, every),
        below(mask_folder, mask_files or {}, every),
    )


def _folders(base: Path) -> list[Path]:
    """The folders in `base` and in those, where it holds no images itself: archives are unpacked into others."""
    if (base / IMAGES).is_dir():
        return []
    inner = _inside(base)
    return [*inner, *(deeper for folder in inner for deeper in _inside(folder))]


def _inside(base: Path) -> list[Path]:
    """The folders in a folder that can be listed, sorted."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(base) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


def _images_fix(base: Path) -> str:
    """The fix for an image folder that is not there: which folders are."""
    others = [folder.name for folder in _inside(base) if folder.name not in (MASKS, LISTS.split("/")[0])]
    told = f", or link their folder (ln -s <folder> {IMAGES}); the folders here are {some_of(others, 8)}"
    return "put the images there as .jpg or .png" + told * bool(others)


def below(folder: str, files: dict[str, str], ids: list[str]) -> dict[str, str]:
    """Path relative to the root of each of these ids that has a file in `folder`."""
    return {image_id: f"{folder}/{files[image_id]}" for image_id in ids if image_id in files}


def named_folder(base: Path, masks: str | None, problems: list[Problem]) -> bool:
    """Whether `data.masks` is left out or names a folder inside `base`; else the word is the problem, not the data."""
    if masks is None or (is_plain(masks) and (base / masks).is_dir()):
        return True
    if is_plain(masks):
        problems.append(Problem("data.masks", f"there is no folder {base / masks}", other_folders(base)))
    else:
        problems.append(Problem("data.masks", f"{masks!r}", f"the name of a folder inside {base}"))
    return False


def other_folders(base: Path) -> str:
    """The fix for a mask folder that is not there: which folders are."""
    others = sorted(
        entry.name for entry in os.scandir(base) if entry.is_dir() and entry.name not in (IMAGES, LISTS.split("/")[0])
    )
    found = f"; the folders here are {some_of(others, 8)}" if others else ""
    return f"data.masks=<folder of index PNGs>{found}"


def _elsewhere(base: Path, *splits: str) -> str:
    """The fix for a list that lies in another folder; empty where none does."""
    above = base / LISTS.split("/")[0]
    places = [folder / f"{split}.txt" for split in splits for folder in (base, above, *_inside(above))]
    return next((f"move {path} there" for path in places if path.is_file()), "")


def listed(base: Path, problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    """Ids of the lists of a VOC-layout folder by split; train and one of val and test are needed."""
    lists: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        path = base / LISTS / f"{split}.txt"
        if path.exists():
            lists[split] = read_ids(path, base / LISTS, problems)
    if "train" not in lists:
        problems.append(
            Problem(
                str(base / LISTS / "train.txt"),
                "there is no such list",
                _elsewhere(base, "train") or "write the ids of the training images there, one a line, without suffix",
            )
        )
    if "val" not in lists and "test" not in lists:
        problems.append(
            Problem(
                f"{base / LISTS}/val.txt or test.txt",
                "neither list exists",
                _elsewhere(base, "val", "test") or "write the ids of the images to be scored there, one a line",
            )
        )
    disjoint(lists, str(base / LISTS), problems)
    return lists
