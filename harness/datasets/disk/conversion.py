"""Masks made once from COCO-style JSON: on all cores, each written whole or not at all, continued when killed."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from harness.datasets.disk.rasterise import MAX_SIDE, Unreadable, incomplete, label_map, whole
from harness.datasets.io.colours import PALETTE
from harness.datasets.io.images import some_of
from harness.datasets.io.listing import leads_out
from harness.datasets.io.opening import plain_bytes
from harness.datasets.io.reading import read_many
from harness.errors import BadInput, Problem
from harness.files import atomic, write_json

VERSION = 1
"""Raised when a made mask changes; masks of another version are made again."""
Parts = Mapping[str, list[Any]]
"""`images`, `annotations` and `categories` of a file."""


@dataclass(frozen=True)
class Instances:
    """An annotation file, by image number: (height, width), and annotations in file order."""

    sizes: dict[int, tuple[int, int]]
    annotations: dict[int, list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Masks:
    """The masks that are made from one annotation file."""

    path: Path
    instances: Instances
    names: Mapping[str, int]
    """Image number by name of the mask, without suffix."""
    class_of: Mapping[int, int]
    """Label by category id."""
    known: str
    """Which categories there are, in words."""
    origin: Mapping[str, Any]
    """What tells this file from another one, kept beside the masks."""
    fix: str
    """What to do about an annotation that cannot be read."""


def read_parts(path: Path, fix: str, other: str) -> Parts:
    """The lists of a COCO-style JSON. Raises BadInput: `fix` where it is no JSON, `other` where it is another one."""
    if leads_out(path, path.parent):
        raise BadInput(Problem(str(path), "a link that leaves its folder", "link the folder, or put the file there"))
    try:
        content = json.loads(plain_bytes(path))
    except OSError as error:
        raise BadInput(Problem(str(path), f"cannot be read ({error.strerror})", "allow reading it")) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(Problem(str(path), f"no whole JSON file ({error})", fix)) from error
    parts = {}
    for name in ("images", "annotations", "categories"):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            raise BadInput(Problem(str(path), f"no list of {name}: this is no instances file", other))
        parts[name] = part
    return parts


def gather(path: Path, parts: Parts, problems: list[Problem], fix: str) -> Instances:
    """Sizes of all images of a file, and their annotations; what is wrong with ids and sizes is added."""
    annotations: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in parts["annotations"]:
        annotations[whole(annotation.get("image_id"))].append(annotation)
    sizes: dict[int, tuple[int, int]] = {}
    odd, twice = [], []
    for image in parts["images"]:
        number, height, width = (whole(image.get(name)) for name in ("id", "height", "width"))
        if not _possible(number, height, width):
            odd.append(repr(image.get("id")))
        elif number in sizes:
            twice.append(str(number))
        else:
            sizes[number] = (height, width)
    if odd:
        problems.append(Problem(str(path), f"{len(odd)} images without a sound id and size: {some_of(odd)}", fix))
    if twice:
        problems.append(Problem(str(path), f"{len(twice)} images stand there twice: {some_of(twice)}", fix))
    if unnumbered := annotations.pop(-1, []):
        ids = list(dict.fromkeys(repr(annotation.get("image_id")) for annotation in unnumbered))
        found = f"{len(unnumbered)} annotations whose image_id is no whole number: {some_of(ids)}"
        problems.append(Problem(str(path), found, "write the ids of images and categories as whole numbers everywhere"))
    astray = [str(number) for number in annotations if number not in sizes]
    if astray and not odd:
        problems.append(Problem(str(path), f"annotations of images that are not there: {some_of(astray)}", fix))
    return Instances(sizes, dict(annotations))


def convert(masks: Masks, folder: Path) -> list[Problem]:
    """Make every mask that `folder` lacks; returns a problem for each image that has an annotation that is unreadable.

    Such an image gets no mask. Raises BadInput where `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state = {"version": VERSION, **masks.origin, "complete": False, "images": len(masks.names)}
        _write_state(folder, state)
        have = {entry.name for entry in os.scandir(folder)}
        todo = [name for name in masks.names if f"{name}.png" not in have]
        work = partial(_make, masks, folder)
        problems = [p for made in read_many(work, todo, what=f"masks of {masks.path.name}") for p in made]
        if not problems:
            _write_state(folder, {**state, "complete": True, "incomplete": _incomplete(masks)})
    except OSError as error:
        fix = "make it writable, or put a link there to a folder that is"
        raise BadInput(Problem(str(folder), f"masks cannot be written ({error.strerror})", fix)) from error
    return problems


def judge(masks: Masks) -> list[Problem]:
    """The problems that `convert` would return, with nothing written."""
    return [p for made in read_many(partial(_make, masks, None), list(masks.names)) for p in made]


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


def converted(path: Path, folder: Path, origin: Mapping[str, Any], is_mask: Callable[[str], bool]) -> bool | None:
    """Whether all masks that were made from this file are in `folder`; None where they come from elsewhere.

    `is_mask` says of a name without suffix whether it is one of them. Raises BadInput for masks of another `origin`
    or by another version.
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
    if made.get("version") != VERSION or any(made.get(name) != value for name, value in origin.items()):
        where, fix = str(folder), "remove that folder: the masks are made again"
        raise BadInput(Problem(where, f"masks made from another {path.name}, or by another version", fix))
    masks = [e.name[:-4] for e in os.scandir(folder) if e.name.endswith(".png") and is_mask(e.name[:-4])]
    wanted = made.get("images")
    return made.get("complete") is True and isinstance(wanted, int) and len(masks) >= wanted


def _make(masks: Masks, folder: Path | None, name: str) -> Sequence[Problem]:
    number = masks.names[name]
    annotations = masks.instances.annotations.get(number, ())
    try:
        labels_HW = label_map(*masks.instances.sizes[number], annotations, masks.class_of, masks.known)
    except Unreadable as error:
        return (Problem(str(masks.path), f"image {number}: {error}", masks.fix),)
    if folder is not None:
        image = Image.fromarray(labels_HW)
        image.putpalette(PALETTE.tobytes())
        with atomic(folder / f"{name}.png") as waiting:
            image.save(waiting, "PNG", compress_level=1)
    return ()


def _incomplete(masks: Masks) -> list[str]:
    """Each annotation that covers no pixel, or a part of which does, in words."""
    return [
        f"annotation {annotation.get('id')} of image {number} has {what}"
        for number in masks.names.values()
        for annotation in masks.instances.annotations.get(number, ())
        if (what := incomplete(annotation)) is not None
    ]


def _possible(number: int, height: int, width: int) -> bool:
    return number >= 0 and 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE


def _state_file(folder: Path) -> Path:
    return folder / ".conversion.json"


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    write_json(_state_file(folder), state)
