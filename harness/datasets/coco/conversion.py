"""Masks made once from an instances JSON: on all cores, each written whole or not at all, continued when killed."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from harness.datasets.coco.names import CATEGORY_IDS, CLASSES, image_name, numbered_name
from harness.datasets.coco.rasterise import MAX_SIDE, Unreadable, incomplete, label_map
from harness.datasets.io.images import COLOURS, merged, some_of
from harness.datasets.io.listing import leads_out
from harness.datasets.io.opening import plain_bytes
from harness.datasets.io.reading import read_many
from harness.errors import BadInput, Problem
from harness.files import atomic, write_json

VERSION = 1
"""Raised when a made mask changes; masks of another version are made again."""
_FIX = "download annotations_trainval2014.zip again and unpack it"
_PALETTE = [value for colour in COLOURS for value in colour]


@dataclass(frozen=True)
class Instances:
    """An annotation file, by image number: (height, width), and annotations in file order."""

    sizes: dict[int, tuple[int, int]]
    annotations: dict[int, list[Mapping[str, Any]]]


def read_instances(path: Path) -> Instances:
    """The images of an instances JSON that have at least one annotation. Raises BadInput with all that is wrong."""
    if leads_out(path, path.parent):
        raise BadInput(Problem(str(path), "a link that leaves its folder", "link the folder, or put the file there"))
    try:
        content = json.loads(plain_bytes(path))
    except OSError as error:
        raise BadInput(Problem(str(path), f"cannot be read ({error.strerror})", "allow reading it")) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(Problem(str(path), f"no whole JSON file ({error})", _FIX)) from error
    parts = {}
    for name in ("images", "annotations", "categories"):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            found = f"no list of {name}: this is no instances file"
            raise BadInput(Problem(str(path), found, "take instances_train2014.json and instances_val2014.json"))
        parts[name] = part
    problems = _categories(path, parts["categories"])
    annotations: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in parts["annotations"]:
        number = annotation.get("image_id")
        annotations[number if type(number) is int else -1].append(annotation)
    sizes: dict[int, tuple[int, int]] = {}
    odd, twice = [], []
    for image in parts["images"]:
        number, height, width = image.get("id"), image.get("height"), image.get("width")
        if not all(type(v) is int for v in (number, height, width)) or not _possible(number, height, width):
            odd.append(repr(number))
        elif number in sizes:
            twice.append(str(number))
        else:
            sizes[number] = (height, width)
    if odd:
        problems.append(Problem(str(path), f"{len(odd)} images without a sound id and size: {some_of(odd)}", _FIX))
    if twice:
        problems.append(Problem(str(path), f"{len(twice)} images stand there twice: {some_of(twice)}", _FIX))
    astray = [str(number) for number in annotations if number not in sizes]
    if astray and not odd:
        problems.append(Problem(str(path), f"annotations of images that are not there: {some_of(astray)}", _FIX))
    if problems:
        raise BadInput(problems)
    return Instances({n: sizes[n] for n in sorted(annotations)}, dict(annotations))


def convert(path: Path, folder: Path, split: str) -> tuple[str, ...]:
    """Make the mask of every annotated image that `folder` lacks; returns the ids of all, sorted.

    Raises BadInput with every annotation that cannot be read (its image gets no mask), or where `folder` cannot be
    written.
    """
    instances = read_instances(path)
    names = {numbered_name(number, split): number for number in instances.sizes}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state = {"version": VERSION, "bytes": path.stat().st_size, "complete": False, "images": len(names)}
        _write_state(folder, state)
        have = {entry.name for entry in os.scandir(folder)}
        todo = [name for name in names if f"{name}.png" not in have]
        work = partial(_make, instances, names, folder, str(path))
        problems = [p for made in read_many(work, todo, what=f"masks of {path.name}") for p in made]
        if not problems:
            _write_state(folder, {**state, "complete": True, "incomplete": _incomplete(instances)})
    except OSError as error:
        fix = "make it writable, or put a link there to a folder that is"
        raise BadInput(Problem(str(folder), f"masks cannot be written ({error.strerror})", fix)) from error
    if problems:
        raise BadInput(merged(problems))
    return tuple(names)


def conversion_warnings(path: Path, folder: Path) -> list[Problem]:
    """A warning for annotations that covered no pixel when the masks in `folder` were made from this file."""
    try:
        state = json.loads(plain_bytes(_state_file(folder)))
    except (OSError, ValueError, RecursionError):
        return []
    told = state.get("incomplete") if isinstance(state, dict) else None
    if not isinstance(told, list) or not told:
        return []
    found = f"{len(told)} annotations are not whole: {some_of(map(str, told), 3)}"
    fix = "draw them, or leave it: such a polygon covers no pixel; the box of an object without outline is 255 (ignore)"
    return [Problem(str(path), found, fix)]


def _incomplete(instances: Instances) -> list[str]:
    """Each annotation that covers no pixel, or a part of which does, in words."""
    return [
        f"annotation {annotation.get('id')} of image {number} has {what}"
        for number, annotations in instances.annotations.items()
        for annotation in annotations
        if (what := incomplete(annotation)) is not None
    ]


def converted(path: Path, folder: Path, split: str) -> bool | None:
    """Whether all masks that were made from this file are in `folder`; None where they come from elsewhere.

    Raises BadInput for masks made from another file or by another version.
    """
    if _state_file(folder).is_symlink():
        found, fix = "a link, and no record of how masks were made", "remove that folder: the masks are made again"
        raise BadInput(Problem(str(_state_file(folder)), found, fix))
    try:
        state = json.loads(plain_bytes(_state_file(folder)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return False
    made = state if isinstance(state, dict) else {}
    if made.get("version") != VERSION or (path.is_file() and made.get("bytes") != path.stat().st_size):
        where, fix = str(folder), "remove that folder: the masks are made again"
        raise BadInput(Problem(where, f"masks made from another {path.name}, or by another version", fix))
    masks = [e.name[:-4] for e in os.scandir(folder) if e.name.endswith(".png") and image_name(e.name[:-4], split)]
    wanted = made.get("images")
    return made.get("complete") is True and isinstance(wanted, int) and len(masks) >= wanted


def _make(instances: Instances, names: Mapping[str, int], folder: Path, source: str, name: str) -> tuple[Problem, ...]:
    number = names[name]
    try:
        labels_HW = label_map(*instances.sizes[number], instances.annotations[number])
    except Unreadable as error:
        return (Problem(source, f"image {number}: {error}", f"correct that annotation; of the official file: {_FIX}"),)
    image = Image.fromarray(labels_HW)
    image.putpalette(_PALETTE)
    with atomic(folder / f"{name}.png") as waiting:
        image.save(waiting, "PNG", compress_level=1)
    return ()


def _categories(path: Path, categories: list[dict[str, Any]]) -> list[Problem]:
    expected = dict(zip(CATEGORY_IDS, CLASSES[1:], strict=True))
    pairs = [(entry.get("id"), entry.get("name")) for entry in categories]
    wrong = [
        f"{number}: {name!r}" for number, name in pairs if not isinstance(number, int) or name != expected.get(number)
    ]
    if not wrong and sorted(number for number, _ in pairs if isinstance(number, int)) == list(CATEGORY_IDS):
        return []
    odd = some_of(wrong, 3) or f"{len(pairs)} of them"
    return [Problem(str(path), f"categories are not COCO's 80 ({odd})", "take the instances files of COCO 2014")]


def _possible(number: int, height: int, width: int) -> bool:
    return number >= 0 and 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE


def _state_file(folder: Path) -> Path:
    return folder / ".conversion.json"


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    write_json(_state_file(folder), state)
