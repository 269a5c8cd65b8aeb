"""Finding the parts of a VOC-layout folder and everything that is wrong with them, without decoding a pixel."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.datasets.base import IGNORE
from harness.datasets.images import IMAGE_SUFFIXES, MASK_SUFFIXES, some_of
from harness.errors import BadInput, Problem

IMAGES = "JPEGImages"
LISTS = "ImageSets/Segmentation"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """What a folder holds. File names are relative to JPEGImages and to the mask folder."""

    root: Path
    mask_folder: str
    class_names: tuple[str, ...]
    """Empty when no file names them."""
    lists: dict[str, tuple[str, ...]]
    has_masks: dict[str, bool]
    images: dict[str, str]
    """Image file of each listed id."""
    masks: dict[str, str]
    """Mask file of each listed id that has one."""


def inspect(root: str | None, mask_folder: str, classes: str | None) -> Layout:
    """The layout of a folder. Raises BadInput with every problem of folders, lists, ids and class names."""
    if not root:
        raise BadInput(Problem("data.root", "not given", f"data.root=<folder with {IMAGES}, masks and {LISTS}>"))
    base = Path(root).expanduser().absolute()
    if not base.is_dir():
        found = "is not a folder" if base.exists() else "there is no such folder"
        raise BadInput(Problem("data.root", f"{base}: {found}", f"data.root=<folder with {IMAGES} and {LISTS}>"))
    problems: list[Problem] = []
    lists = _lists(base, problems)
    image_files = _files(base / IMAGES, IMAGE_SUFFIXES, problems, "put the images there as .jpg or .png")
    mask_files: dict[str, str] | None = None
    if _is_plain(mask_folder):
        mask_files = _files(base / mask_folder, MASK_SUFFIXES, problems, _other_folders(base))
    else:
        problems.append(Problem("data.masks", f"{mask_folder!r}", f"the name of a folder inside {base}"))
    names = _class_names(base, mask_folder if _is_plain(mask_folder) else "", classes, problems)
    every = [image_id for ids in lists.values() for image_id in ids]
    if image_files is not None:
        _missing(every, image_files, base / IMAGES, "image", problems)
    has_masks = dict.fromkeys(lists, True)
    if mask_files is not None:
        for split, ids in lists.items():
            has_masks[split] = split == "train" or any(image_id in mask_files for image_id in ids)
            if has_masks[split]:
                _missing(ids, mask_files, base / mask_folder, f"mask ({split}.txt)", problems)
    if problems:
        raise BadInput(problems)
    assert image_files is not None
    assert mask_files is not None
    return Layout(
        base,
        mask_folder,
        names,
        lists,
        has_masks,
        {i: image_files[i] for i in every},
        {i: mask_files[i] for i in every if i in mask_files},
    )


def _lists(base: Path, problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    lists: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        path = base / LISTS / f"{split}.txt"
        if path.exists():
            lists[split] = _read_list(path, base / LISTS, problems)
    if "train" not in lists:
        problems.append(
            Problem(
                str(base / LISTS / "train.txt"),
                "there is no such list",
                "write the ids of the training images there, one a line, without suffix",
            )
        )
    if "val" not in lists and "test" not in lists:
        problems.append(
            Problem(
                f"{base / LISTS}/val.txt or test.txt",
                "neither list exists",
                "write the ids of the images to be scored there, one a line",
            )
        )
    counts = Counter(image_id for ids in lists.values() for image_id in set(ids))
    shared = [image_id for image_id, count in counts.items() if count > 1]
    if shared:
        where = [split for split, ids in lists.items() if not set(shared).isdisjoint(ids)]
        problems.append(
            Problem(
                str(base / LISTS),
                f"{len(shared)} ids stand in more than one of "
                f"{', '.join(f'{split}.txt' for split in where)}: {some_of(shared)}",
                "keep each image in one split",
            )
        )
    return lists


def _read_list(path: Path, folder: Path, problems: list[Problem]) -> tuple[str, ...]:
    lines = _lines(path, folder, problems)
    if lines is None:
        return ()
    ids = [line.strip() for line in lines if line.strip()]
    refused = [image_id for image_id in ids if not _is_plain(image_id)]
    if refused:
        problems.append(
            Problem(
                str(path),
                f"{len(refused)} lines are no ids: {some_of(map(repr, refused))}",
                "write one id a line: a file name without folder, suffix and '..'",
            )
        )
    ids = [image_id for image_id in ids if _is_plain(image_id)]
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        problems.append(
            Problem(str(path), f"{len(twice)} ids stand there more than once: {some_of(twice)}", "keep each id once")
        )
    if not ids and not refused:
        problems.append(Problem(str(path), "the list is empty", "write one id a line, or remove the list"))
    return tuple(dict.fromkeys(ids))


def _files(folder: Path, suffixes: tuple[str, ...], problems: list[Problem], fix: str) -> dict[str, str] | None:
    try:
        entries = sorted((entry.name, entry.is_symlink()) for entry in os.scandir(folder))
    except FileNotFoundError:
        problems.append(Problem(str(folder), "there is no such folder", fix))
        return None
    except OSError as error:
        problems.append(Problem(str(folder), f"cannot be listed ({error.strerror})", fix))
        return None
    files: dict[str, str] = {}
    twice, outside = [], []
    inside = folder.resolve()
    for name, linked in entries:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes:
            continue
        if linked and not (folder / name).resolve().is_relative_to(inside):
            outside.append(name)
        elif stem in files:
            twice.append(f"{files[stem]} and {name}")
        files.setdefault(stem, name)
    if twice:
        problems.append(Problem(str(folder), f"{len(twice)} ids have two files: {some_of(twice)}", "keep one"))
    if outside:
        problems.append(
            Problem(
                str(folder),
                f"{len(outside)} files are links that leave it: {some_of(outside)}",
                "link the folder as a whole, or put the files themselves there",
            )
        )
    return files


def _missing(ids: Iterable[str], files: dict[str, str], folder: Path, what: str, problems: list[Problem]) -> None:
    absent = [image_id for image_id in ids if image_id not in files]
    if not absent:
        return
    fix = "add the files, or take the ids out of the lists"
    if all(os.path.splitext(image_id)[1].lower() in IMAGE_SUFFIXES for image_id in absent):
        fix = "write the ids in the lists without suffix"
    problems.append(Problem(str(folder), f"{len(absent)} listed ids have no {what}: {some_of(absent)}", fix))


def _other_folders(base: Path) -> str:
    others = sorted(
        entry.name for entry in os.scandir(base) if entry.is_dir() and entry.name not in (IMAGES, LISTS.split("/")[0])
    )
    found = f"; the folders here are {some_of(others, 8)}" if others else ""
    return f"data.masks=<folder of index PNGs>{found}"


def _class_names(base: Path, mask_folder: str, classes: str | None, problems: list[Problem]) -> tuple[str, ...]:
    if classes is not None:
        path = Path(classes).expanduser()
        if not path.is_file():
            problems.append(
                Problem(
                    "data.classes",
                    f"{classes}: there is no such file",
                    "a text file with one class name per line, label 0 first",
                )
            )
            return ()
        folder = path.parent
    else:
        folder = base
        found = [base / f"classes_{mask_folder}.txt", base / "classes.txt"]
        existing = [path for path in found if path.exists()]
        if not existing:
            return ()
        path = existing[0]
    lines = _lines(path, folder, problems)
    if lines is None:
        return ()
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    fix = "one name per line, label 0 first"
    if not 0 < len(names) <= IGNORE:
        problems.append(Problem(str(path), f"{len(names)} class names, 1 to {IGNORE} expected", fix))
    if "" in names:
        problems.append(Problem(str(path), f"line {names.index('') + 1} is empty: later labels would shift", fix))
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        problems.append(Problem(str(path), f"names given twice: {some_of(twice)}", "give each label its own name"))
    return tuple(names)


def _lines(path: Path, folder: Path, problems: list[Problem]) -> list[str] | None:
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            problems.append(Problem(str(path), "a link that leaves its folder", "put the file itself there"))
            return None
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        problems.append(Problem(str(path), "not UTF-8 text", "save it as plain UTF-8 text, one entry a line"))
    except OSError as error:
        problems.append(Problem(str(path), f"cannot be read ({error.strerror})", "allow reading it (chmod a+r)"))
    return None


def _is_plain(name: str) -> bool:
    return (
        bool(name)
        and ".." not in name
        and not name.startswith((".", "~"))
        and not any(letter in "/\\" or not letter.isprintable() for letter in name)
    )
