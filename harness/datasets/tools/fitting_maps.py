"""Whether another program's CAMs are of this dataset: classes against true tags, shapes against images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.datasets.disk.files import FileDataset
from harness.datasets.io.images import some_of
from harness.errors import Problem

SHIFTS = {
    -1: "they fit with one less: keys are label values, and those of foreground classes begin at 0",
    1: "they fit with one more: the first foreground class is 0",
}
"""What it means where classes fit once they are moved."""
MOST = 0.5
"""Share of the files that must be wrong in one way for it to be said; single ones differ for other reasons."""
ASPECT = 0.05
"""How far the aspect of a map may be from its image's, in logarithms, beside the rounding of small maps."""


@dataclass(frozen=True)
class MapFile:
    """What one image's file holds: class numbers as written (None where the layout has all), (h,w) of the maps."""

    where: str
    classes: tuple[int, ...] | None
    size: tuple[int, int] | None
    """None for a file without maps."""

    @classmethod
    def of(cls, path: Path, classes: NDArray[Any], maps: NDArray[Any], listed: bool) -> MapFile:
        """Of what `foreign_files.arrays_of` found, whether or not the maps are sound."""
        whole = listed and classes.ndim == 1 and classes.dtype.kind in "iu"
        size = (int(maps.shape[1]), int(maps.shape[2])) if maps.ndim == 3 and len(maps) else None
        return cls(str(path), tuple(classes.tolist()) if whole else None, size)


def judge_maps(dataset: Dataset, files: Mapping[str, MapFile]) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings on map files by image id, of which images without mask or tags are left out.

    Errors: classes that fit the true tags once they are moved by one, maps that fit their images once they are
    transposed. A warning: classes of most files that are not the true tags.
    """
    tags = _tags(dataset, [i for i, file in files.items() if file.classes])
    errors: list[Problem] = []
    warnings: list[Problem] = []
    wrong = [i for i, true in tags.items() if set(files[i].classes or ()) != true]
    moved = {s: [i for i in wrong if {c + s for c in files[i].classes or ()} == tags[i]] for s in SHIFTS}
    shift = max(SHIFTS, key=lambda s: len(moved[s]))
    if len(moved[shift]) > MOST * len(tags):
        found = f"classes of {len(moved[shift])} of {len(tags)} files are not the true tags; {SHIFTS[shift]}"
        fix = f"write them with {abs(shift)} {'less' if shift < 0 else 'more'}, so that class 0 is "
        errors.append(Problem(files[moved[shift][0]].where, found, f"{fix}{_name(dataset, 0)}"))
        return [*errors, *_transposed(dataset, files)], []
    lacking = [i for i in wrong if not tags[i] <= set(files[i].classes or ())]
    if len(lacking) > MOST * len(tags):
        first = lacking[0]
        has, true = (_names(dataset, c) for c in (files[first].classes or (), sorted(tags[first])))
        found = f"{len(lacking)} of {len(tags)} files lack a class that their image shows ({first} has {has}, shows "
        fix = "check that the classes are those of this dataset in its order; maps that are not there count as misses"
        warnings.append(Problem(files[first].where, f"{found}{true})", fix))
    return [*errors, *_transposed(dataset, files)], warnings


def _tags(dataset: Dataset, ids: list[str]) -> dict[str, set[int]]:
    """The true classes, from 0, of these images where they can be known."""
    known = {i for split, has in dataset.splits().items() if has for i in dataset.ids(split)}
    chosen = [image_id for image_id in ids if image_id in known]
    if isinstance(dataset, FileDataset):
        dataset.facts(chosen)  # on all cores
    return {i: set(np.flatnonzero(dataset.tags(i)).tolist()) for i in chosen}


def _transposed(dataset: Dataset, files: Mapping[str, MapFile]) -> list[Problem]:
    """An error where maps have the aspect of their images with height and width exchanged."""
    turned, told = [], 0
    for image_id, file in files.items():
        if file.size is None or 0 in file.size:
            continue
        (h, w), (height, width) = file.size, dataset.size(image_id)
        near = ASPECT + 1 / min(h, w)
        if abs(log(height / width)) <= near:
            continue
        upright = abs(log(h / w) - log(height / width)) <= near
        across = abs(log(h / w) + log(height / width)) <= near
        told += upright or across
        if across and not upright:
            turned.append(image_id)
    if not turned or len(turned) <= MOST * told:
        return []
    file = files[turned[0]]
    (h, w), (height, width) = file.size or (0, 0), dataset.size(turned[0])
    found = f"maps of {len(turned)} of {told} files are transposed: {h} rows of {w}, the image has {height} of {width}"
    return [Problem(file.where, found, "write maps as (n,h,w), rows first, as the image is")]


def _name(dataset: Dataset, c: int) -> str:
    return repr(dataset.class_names[c + int(dataset.has_background)])


def _names(dataset: Dataset, classes: Iterable[int]) -> str:
    names = dataset.class_names[int(dataset.has_background) :]
    return some_of((names[c] if 0 <= c < len(names) else str(c) for c in classes), 4) or "none"
