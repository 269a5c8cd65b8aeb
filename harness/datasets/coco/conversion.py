"""COCO's own instances files: their 80 categories, and the masks of every annotated image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.datasets.coco.names import CATEGORY_IDS, CLASS_OF, CLASSES, image_name, numbered_name
from harness.datasets.disk import conversion
from harness.datasets.disk.conversion import Instances, Masks, gather, read_parts
from harness.datasets.io.images import merged, some_of
from harness.errors import BadInput, Problem

KNOWN = "COCO's 80"
_FIX = "download annotations_trainval2014.zip again and unpack it"


def read_instances(path: Path) -> Instances:
    """The images of an instances JSON that have at least one annotation. Raises BadInput with all that is wrong."""
    parts = read_parts(path, _FIX, "take instances_train2014.json and instances_val2014.json")
    problems = _categories(path, parts["categories"])
    instances = gather(path, parts, problems, _FIX)
    if problems:
        raise BadInput(problems)
    annotations = instances.annotations
    return Instances({number: instances.sizes[number] for number in sorted(annotations)}, annotations)


def convert(path: Path, folder: Path, split: str) -> tuple[str, ...]:
    """Make the mask of every annotated image that `folder` lacks; returns the ids of all, sorted.

    Raises BadInput with every annotation that cannot be read (its image gets no mask), or where `folder` cannot be
    written.
    """
    instances = read_instances(path)
    names = {numbered_name(number, split): number for number in instances.sizes}
    fix = f"correct that annotation; of the official file: {_FIX}"
    problems = conversion.convert(Masks(path, instances, names, CLASS_OF, KNOWN, _origin(path), fix), folder)
    if problems:
        raise BadInput(merged(problems))
    return tuple(names)


def converted(path: Path, folder: Path, split: str) -> bool | None:
    """Whether all masks that were made from this file are in `folder`; None where they come from elsewhere.

    Raises BadInput for masks made from another file or by another version.
    """
    return conversion.converted(path, folder, _origin(path), lambda name: image_name(name, split) is not None)


def _origin(path: Path) -> Mapping[str, Any]:
    return {"bytes": path.stat().st_size} if path.is_file() else {}


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
