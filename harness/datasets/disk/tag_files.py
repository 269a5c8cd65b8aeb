"""Image-level labels from files: VOC's XML, JSON, and the field's `cls_labels*.npy` through the restricted reader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from harness.datasets.disk.naming import Names
from harness.datasets.io.images import attempt, merged, some_of
from harness.datasets.io.listing import files_of
from harness.datasets.io.opening import plain_bytes
from harness.datasets.io.restricted import read_npy
from harness.datasets.weak.drawn import MAX_XML_BYTES, OTHER_NAMES, load_json
from harness.errors import BadInput, Problem, nearest

Tags = dict[str, NDArray[np.float32]]
_FORMS = "a folder of VOC XML files, a JSON file {id: [class names]}, or cls_labels*.npy"


def read_tags(source: Path, classes: Sequence[str], ids: Iterable[str], *, pickles: bool = False) -> Tags:
    """Image-level labels (C,) in {0,1} by image id; `classes` are the C foreground names in label order.

    Of the file's images those in `ids` are kept: its keys may be ids, file names, or IRN's whole numbers
    of VOC and COCO (2007000032, 42). `.npy` needs `pickles`. Raises BadInput with everything that is wrong, also for
    keys that mean several images.
    """
    if source.is_dir():
        return _from_xml(source, classes, Names(ids))
    if source.suffix == ".npy":
        if not pickles:
            fix = f"python -m harness.data import-tags tags={source} out=tags.json ..., then data.tags=tags.json"
            raise BadInput(Problem(str(source), "a pickled file is read by import-tags alone", fix))
        content = read_npy(source)
    elif source.suffix == ".json":
        content = load_json(source)
    else:
        found = "no such file" if not source.exists() else f"a {source.suffix or 'nameless'} file"
        raise BadInput(Problem(str(source), found, f"give {_FORMS}"))
    if isinstance(content, dict) and isinstance(content.get("tags"), dict):
        content = content["tags"]
    if not isinstance(content, dict):
        raise BadInput(Problem(str(source), "no dict of tags by image id", f"give {_FORMS}"))
    return _chosen(source, content, classes, Names(ids, numbers=True))


def write_tags(path: Path, tags: Mapping[str, NDArray[np.float32]], classes: Sequence[str]) -> None:
    """Tags as JSON: `{"classes": names, "tags": {id: names}}`, ids sorted; equal tags give equal bytes."""
    named = {image_id: [classes[c] for c in np.flatnonzero(tags[image_id]).tolist()] for image_id in sorted(tags)}
    lines = ",\n".join(f"  {json.dumps(image_id)}: {json.dumps(names)}" for image_id, names in named.items())
    path.write_text(f'{{"classes": {json.dumps(list(classes))},\n "tags": {{\n{lines}\n }}\n}}\n', encoding="utf-8")


def _chosen(source: Path, content: Mapping[Any, Any], classes: Sequence[str], names: Names) -> Tags:
    found: Tags = {}
    unclear: dict[str, tuple[str, ...]] = {}
    twice: list[str] = []
    wrong: list[str] = []
    reason = ""
    for key, value in content.items():
        name = str(key).rpartition("/")[2]
        meant = names.of(str(key)) or names.of(name) or names.of(name.rpartition(".")[0])
        if len(meant) > 1:
            unclear[str(key)] = meant
        if len(meant) != 1:
            continue
        if meant[0] in found:
            twice.append(f"{meant[0]} (key {key!r})")
        try:
            found[meant[0]] = _vector(value, classes)
        except ValueError as error:
            wrong.append(meant[0])
            reason = reason or str(error)
    problems = []
    if unclear:
        key, meant = next(iter(unclear.items()))
        text = f"{len(unclear)} keys mean several images: {key!r} may be {' or '.join(meant[:3])}"
        problems.append(Problem(str(source), text, "write whole image ids"))
    if twice:
        problems.append(
            Problem(str(source), f"{len(twice)} images have two keys: {some_of(twice)}", "keep one of each")
        )
    if wrong:
        fix = f"names of {some_of(classes, 3)}, or {len(classes)} numbers 0 or 1"
        text = f"{len(wrong)} images have no tags: {some_of(wrong)} ({reason})"
        problems.append(Problem(str(source), text, fix))
    if not found and not problems:
        shown = some_of(map(repr, content), 3)
        problems.append(
            Problem(str(source), f"none of its {len(content)} keys is an image here: {shown}", "other data?")
        )
    if problems:
        raise BadInput(problems)
    return found


def _vector(value: Any, classes: Sequence[str]) -> NDArray[np.float32]:
    """Tags from class names, or from C (or, with background first, C+1) numbers 0 and 1."""
    out = np.zeros(len(classes), np.float32)
    if isinstance(value, list | tuple) and any(isinstance(v, str) for v in value):
        for name in map(str, value):
            known = OTHER_NAMES.get(name, name) if name not in classes else name
            if known not in classes:
                raise ValueError(f"class {name!r}; {nearest(name, classes)}"[:120])
            out[list(classes).index(known)] = 1.0
        return out
    if isinstance(value, list | tuple) and not value:
        return out
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "biuf" or numbers.ndim != 1 or numbers.size not in (out.size, out.size + 1):
        raise ValueError(f"{numbers.dtype} of shape {numbers.shape}")
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError("numbers other than 0 and 1")
    return numbers[-out.size :].astype(np.float32)


def _from_xml(folder: Path, classes: Sequence[str], names: Names) -> Tags:
    problems: list[Problem] = []

    def meant(stem: str) -> str | None:
        ids = names.of(stem)
        return ids[0] if len(ids) == 1 else None

    files = files_of(folder, (".xml",), problems, f"give {_FORMS}", meant)
    if problems:
        raise BadInput(problems)
    here = sorted(files or {})
    if not here:
        raise BadInput(Problem(str(folder), "no XML file of an image of this dataset", f"give {_FORMS}"))
    found: Tags = {}
    for image_id, tags in attempt(lambda i: _objects(folder / (files or {})[i], classes), here):
        if isinstance(tags, np.ndarray):
            found[image_id] = tags
        else:
            problems += tags
    if problems:
        raise BadInput(merged(problems))
    return found


def _objects(path: Path, classes: Sequence[str]) -> NDArray[np.float32]:
    """Classes of the `object` elements of one VOC annotation, difficult ones too, as the field takes them."""
    again = "take the annotation of VOC again"
    try:
        data = plain_bytes(path, MAX_XML_BYTES + 1)
        if len(data) > MAX_XML_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise BadInput(Problem(str(path), "no annotation (too long, or it defines entities)", again))
        root = ElementTree.fromstring(data)
    except OSError as error:
        raise BadInput(Problem(str(path), f"cannot be read ({error.strerror})", "check its permissions")) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInput(Problem(str(path), f"damaged XML ({error})", again)) from error
    names = [(entry.findtext("name") or "").strip() for entry in root.iter("object")]
    try:
        return _vector(names, classes)
    except ValueError as error:
        raise BadInput(Problem(str(path), str(error), "name the classes as the dataset does")) from error
