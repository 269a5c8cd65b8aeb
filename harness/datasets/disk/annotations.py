"""COCO-style JSON with categories of its own as the masks of a folder: `data.annotations`."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from harness.api.vocabulary import IGNORE
from harness.datasets.disk.conversion import (
    VERSION,
    Instances,
    Masks,
    Parts,
    conversion_warnings,
    convert,
    converted,
    gather,
    judge,
    read_parts,
)
from harness.datasets.disk.layout import IMAGES, LISTS, SPLITS, Layout, listed
from harness.datasets.disk.rasterise import whole
from harness.datasets.io.images import IMAGE_SUFFIXES, image_size, merged, some_of
from harness.datasets.io.listing import disjoint, given_path, is_plain, leads_out, link_out, root_folder
from harness.datasets.io.reading import read_many
from harness.errors import BadInput, Problem
from harness.files import digest_of, file_digest

WORD = "data.annotations"
BACKGROUND = "background"
SPLIT_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
"""Where a tool that writes one JSON for each split puts it, beside the images."""
_JSON_FIX = "export it again as COCO JSON (COCO instances, COCO segmentation)"
_KNOWN = "this file's categories"


@dataclass(frozen=True)
class Annotated:
    """One annotation file, as far as it can be read."""

    path: Path
    parts: Parts
    instances: Instances
    numbers: Mapping[str, int]
    """Image number by id: the file name without folder and suffix."""
    files: Mapping[str, str]
    """`file_name` by id."""


def annotated(root: str | None, given: str, problems: list[Problem], warnings: list[Problem]) -> Layout | None:
    """The layout of a folder whose masks are made of annotations, once; everything that is wrong is added.

    `given` is one JSON for all images, one for each of train, val and test with commas, or a name that each split's
    folder has. Lists decide which image is in which split; without them the files do. Class names are the categories.
    """
    base = root_folder(root, f"images and {LISTS}", problems)
    if base is None:
        return None
    try:
        paths = _paths(given, base)
    except BadInput as error:
        problems += error.problems
        return None
    read = {split: one for split, path in paths.items() if (one := _read(path, problems)) is not None}
    if len(read) < len(paths):
        return None
    own = list(read.values())
    names, class_of = _classes(own, problems)
    lists = _lists(base, read, problems)
    every = [image_id for ids in lists.values() for image_id in ids]
    images = _images(base, own, every, problems)
    known = {image_id for one in own for image_id in one.numbers}
    has_masks = {split: split == "train" or not known.isdisjoint(ids) for split, ids in lists.items()}
    for split, ids in lists.items():
        absent = [image_id for image_id in ids if image_id not in known]
        if has_masks[split] and absent:
            found = f"{len(absent)} ids of {split}.txt are no image of the annotations: {some_of(absent)}"
            problems.append(Problem(given, found, "annotate them, or take the ids out of the lists"))
    masks: dict[str, str] = {}
    folders = []
    for one in own:
        folders.append(_made(base, one, class_of, images, set(every), problems, warnings))
        if (base / folders[-1]).is_dir():  # else the annotations say why; files that nobody wrote are not asked for
            masks |= {i: f"{folders[-1]}/{i}.png" for i in one.numbers if i in set(every)}
    name = f"{base.name} with annotations {some_of(one.path.name for one in own)}"
    return Layout(base, folders[0], names, lists, has_masks, images, masks, name)


def _paths(given: str, base: Path) -> dict[str, Path]:
    """Annotation files by split; by the empty name where one file is for all."""
    below = {
        split: base / folder / given
        for split, folders in SPLIT_FOLDERS.items()
        for folder in reversed(folders)
        if is_plain(given) and os.path.isfile(base / folder / given)
    }
    if below and not Path(given).exists() and not (base / given).exists():
        return below
    several = [part.strip() for part in given.split(",") if part.strip()] if "," in given else [given]
    if len(several) > len(SPLITS):
        fix = "one, or one each for train, val and test, in this order"
        raise BadInput(Problem(WORD, f"{len(several)} files", fix))
    problems, found = [], []
    for text in several:
        try:
            found.append(given_path(WORD, text, base))
        except BadInput as error:
            problems += error.problems
    problems += [Problem(WORD, f"{p} is a folder", f"{WORD}=<JSON file>") for p in found if p.is_dir()]
    if problems:
        raise BadInput(problems)
    return {"": found[0]} if len(found) == 1 else dict(zip(SPLITS, found, strict=False))


def _read(path: Path, problems: list[Problem]) -> Annotated | None:
    try:
        parts = read_parts(path, _JSON_FIX, _JSON_FIX)
    except BadInput as error:
        problems += error.problems
        return None
    instances = gather(path, parts, problems, _JSON_FIX)
    numbers: dict[str, int] = {}
    files: dict[str, str] = {}
    odd, twice = [], []
    for image in parts["images"]:
        number, file_name = whole(image.get("id")), image.get("file_name")
        image_id = _id(file_name) if isinstance(file_name, str) else None
        if number not in instances.sizes:
            continue
        if image_id is None or not isinstance(file_name, str):
            odd.append(f"{number}: {file_name!r}")
        elif image_id in numbers:
            twice.append(image_id)
        else:
            numbers[image_id], files[image_id] = number, file_name.replace("\\", "/")
    if odd:
        found = f"{len(odd)} images without a sound file_name: {some_of(odd)}"
        problems.append(Problem(str(path), found, "give each the name of its .jpg or .png"))
    if twice:
        found = f"{len(twice)} images have the name of another one: {some_of(twice)}"
        problems.append(Problem(str(path), found, "rename them: an id is a file name without folder and suffix"))
    return Annotated(path, parts, instances, numbers, files)


def _id(file_name: str) -> str | None:
    """The id of an image; None where its name is none, or its file is of a kind that is not read."""
    stem, suffix = os.path.splitext(PurePosixPath(file_name.replace("\\", "/")).name)
    return stem if suffix.lower() in IMAGE_SUFFIXES and is_plain(stem) else None


def _classes(own: list[Annotated], problems: list[Problem]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, the background first, and the label of each category id: 1, 2, ... in order of the ids."""
    used = {whole(annotation.get("category_id")) for one in own for annotation in one.parts["annotations"]}
    first = _categories(own[0], used, problems)
    for other in own[1:]:
        if _categories(other, used, problems) != first:
            found = f"other categories than {own[0].path}"
            problems.append(Problem(str(other.path), found, "export all splits with the same categories"))
    names = [first[number] for number in sorted(first) if first[number] != BACKGROUND]
    class_of = {number: 0 if name == BACKGROUND else names.index(name) + 1 for number, name in first.items()}
    where = str(own[0].path)
    twice = [name for name, count in Counter(first.values()).items() if count > 1]
    if twice:
        found = f"names of more than one category: {some_of(twice)}"
        problems.append(Problem(where, found, "give each category its own name"))
    if not 0 < len(names) < IGNORE:
        problems.append(Problem(where, f"{len(names)} categories, 1 to {IGNORE - 1} expected", _JSON_FIX))
    for one in own:
        unknown = Counter(
            repr(annotation.get("category_id"))
            for annotation in one.parts["annotations"]
            if whole(annotation.get("category_id")) not in class_of
        )
        if unknown:
            told = some_of(f"{number} ({count} annotations)" for number, count in unknown.items())
            found = f"category_id that is in no category: {told}; there are {some_of(map(str, sorted(class_of)), 8)}"
            problems.append(Problem(str(one.path), found, "add it to `categories`, or correct these annotations"))
    return (BACKGROUND, *names), class_of


def _categories(one: Annotated, used: set[int], problems: list[Problem]) -> dict[int, str]:
    """Name by id; a group that only other categories name and no annotation has (Roboflow's id 0) is none."""
    entries = one.parts["categories"]
    names: dict[int, str] = {}
    odd = []
    groups = {entry.get("supercategory") for entry in entries if isinstance(entry.get("supercategory"), str)}
    for entry in entries:
        number, name = whole(entry.get("id")), entry.get("name")
        if number < 0 or number in names or not isinstance(name, str) or not name.strip():
            odd.append(f"{entry.get('id')!r}: {name!r}")
        elif number in used or name not in groups or entry.get("supercategory") not in (None, "", "none"):
            names[number] = name.strip()
    if odd:
        found = f"{len(odd)} categories without an id and name of their own: {some_of(odd)}"
        problems.append(Problem(str(one.path), found, "give each a whole number and a name"))
    return names


def _lists(base: Path, read: Mapping[str, Annotated], problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    """Ids by split: of the lists, else of the files."""
    if any((base / LISTS / f"{split}.txt").exists() for split in SPLITS):
        return listed(base, problems)
    if "train" in read and len(read) > 1:
        lists = {split: tuple(one.numbers) for split, one in read.items()}
        disjoint(lists, str(base), problems)
        return lists
    told = " and ".join(str(one.path) for one in read.values())
    found = f"no lists, and only {told}: which image is trained on, which is scored?"
    fix = f"write {LISTS}/train.txt and val.txt, one id a line, or give {WORD}=<train.json>,<val.json>"
    problems.append(Problem(str(base / LISTS), found, fix))
    return {"train": tuple(image_id for one in read.values() for image_id in one.numbers)}


def _images(base: Path, own: list[Annotated], every: Iterable[str], problems: list[Problem]) -> dict[str, str]:
    """Path relative to the root of each of these ids that has an image, by its file_name or, in no file, by its id."""
    named = {image_id: (one, one.files[image_id]) for one in own for image_id in one.numbers}
    images: dict[str, str] = {}
    absent = []
    for image_id in every:
        one, file_name = named.get(image_id, (None, ""))
        places = [base / IMAGES, base, base / "images"]
        if one is not None and one.path.parent.resolve().is_relative_to(base.resolve()):
            places.insert(0, base / one.path.parent.resolve().relative_to(base.resolve()))
        inner = PurePosixPath(file_name)
        tails = [file_name, inner.name] if all(map(is_plain, file_name.split("/"))) else [inner.name]
        if one is None:
            tails = [image_id + suffix for suffix in IMAGE_SUFFIXES]
        found = next((p / tail for p in places for tail in tails if tail and os.path.isfile(p / tail)), None)
        if found is None:
            absent.append(file_name or image_id)
        elif found.is_symlink() and leads_out(found, found.parent):
            problems.append(link_out(found))
        else:
            images[image_id] = str(found.relative_to(base))
    if absent:
        found_text = f"{len(absent)} images of the annotations or lists have no file: {some_of(absent)}"
        fix = f"put them into {base / IMAGES}, or where file_name says below {base}"
        problems.append(Problem(str(base), found_text, fix))
    return images


def _made(
    base: Path,
    one: Annotated,
    class_of: Mapping[int, int],
    images: Mapping[str, str],
    every: set[str],
    problems: list[Problem],
    warnings: list[Problem],
) -> str:
    """The folder of the masks of one file, which are made where they are not there; with problems nothing is."""
    names = {image_id: number for image_id, number in one.numbers.items() if image_id in every}
    origin = {"digest": digest_of([VERSION, file_digest(one.path), sorted(class_of.items()), sorted(names.items())])}
    folder = f"masks_{one.path.stem.lstrip('._')}_{origin['digest'][:12]}"
    masks = Masks(one.path, one.instances, names, class_of, _KNOWN, origin, "correct that annotation")
    try:
        have = converted(one.path, base / folder, origin, names.__contains__)
        if not have:
            work = partial(_other_size, base, one, images)
            unequal = [p for found in read_many(work, [i for i in names if i in images]) for p in found]
            if problems or unequal:
                problems += merged([*unequal, *judge(_of_known(masks))])
            elif wrong := convert(masks, base / folder):
                shutil.rmtree(base / folder)
                problems += merged(wrong)
    except BadInput as error:
        problems += error.problems
    warnings += conversion_warnings(one.path, base / folder)
    return folder


def _of_known(masks: Masks) -> Masks:
    """Without annotations of unknown categories, which are told already."""
    kept = {
        number: [a for a in annotations if whole(a.get("category_id")) in masks.class_of]
        for number, annotations in masks.instances.annotations.items()
    }
    return replace(masks, instances=replace(masks.instances, annotations=kept))


def _other_size(base: Path, one: Annotated, images: Mapping[str, str], image_id: str) -> list[Problem]:
    """A problem where the file says another size than the image has; an image that is damaged is told by `check`."""
    height, width = one.instances.sizes[one.numbers[image_id]]
    try:
        size = image_size(base / images[image_id])
    except BadInput:
        return []
    if size == (height, width):
        return []
    found = f"annotated as {width}x{height} pixels, the image has {size[1]}x{size[0]}"
    fix = "annotate the image in its own size, or put the images there that were annotated"
    if size == (width, height):
        fix = "turn the stored pixels as the EXIF tag says and drop it (exiftran -ai <file>), or annotate it as stored"
    return [Problem(str(base / images[image_id]), found, fix)]
