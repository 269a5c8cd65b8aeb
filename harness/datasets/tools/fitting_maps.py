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
LACKING = 0.2
"""Share of these that must lack a class which their image shows: files of all classes fit with the first taken off."""
ORDERED = 0.9
"""Where classes are in another order: share of the files with a class, or with the one that is written for it, in which
both are; below `MOST` are with the class itself."""
FEW = 3
"""Files with a class from which its order can be told."""
ASPECT = 0.05
"""How far the aspect of a map may be from its image's, in logarithms, beside the rounding of small maps."""


@dataclass(frozen=True)
class MapFile:
    """What one image's file holds: class numbers as written (None where the layout has all), (h,w) of the maps."""

    where: str
    classes: tuple[int, ...] | None
    size: tuple[int, int] | None
    """None for a file without maps."""
    lit: bool = True
    """Whether anything in the maps is above zero."""

    @classmethod
    def of(cls, path: Path, classes: NDArray[Any], maps: NDArray[Any], listed: bool) -> MapFile:
        """Of what `foreign_files.arrays_of` found, whether or not the maps are sound."""
        whole = listed and classes.ndim == 1 and classes.dtype.kind in "iu"
        size = (int(maps.shape[1]), int(maps.shape[2])) if maps.ndim == 3 and len(maps) else None
        lit = maps.dtype.kind in "fuib" and bool((maps > 0).any())
        return cls(str(path), tuple(classes.tolist()) if whole else None, size, lit)


def judge_maps(dataset: Dataset, files: Mapping[str, MapFile]) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings on map files by image id, of which images without mask or tags are left out.

    Errors: classes that fit the true tags once they are moved by one or put in another order, maps that fit their
    images once they are transposed. A warning: classes of most files that are not the true tags, or nothing above zero
    in most.
    """
    if dark := _dark(dataset, files):
        return [], [dark]
    tags = _tags(dataset, [i for i, file in files.items() if file.classes])
    errors: list[Problem] = []
    warnings: list[Problem] = []
    wrong = [i for i, true in tags.items() if set(files[i].classes or ()) != true]
    # A background among label values, 0, is -1 once they are moved.
    moved = {
        s: [i for i in wrong if {c + s for c in files[i].classes or ()} - {-1} == tags[i] != set()] for s in SHIFTS
    }
    shift = max(SHIFTS, key=lambda s: len(moved[s]))
    lacking = [i for i in wrong if not tags[i] <= set(files[i].classes or ())]
    if len(moved[shift]) > MOST * len(tags) and len(set(moved[shift]) & set(lacking)) > LACKING * len(moved[shift]):
        found = f"classes of {len(moved[shift])} of {len(tags)} files are not the true tags; {SHIFTS[shift]}"
        fix = f"write them with {abs(shift)} {'less' if shift < 0 else 'more'}, "
        fix += "without the background (0), " if shift < 0 and any(0 in (files[i].classes or ()) for i in wrong) else ""
        fix += "so that class 0 is "
        errors.append(Problem(files[moved[shift][0]].where, found, f"{fix}{_name(dataset, 0)}"))
        return [*errors, *_transposed(dataset, files)], []
    swapped = _another_order(dataset, files, tags)
    if swapped:
        return [*swapped, *_transposed(dataset, files)], []
    if len(lacking) > MOST * len(tags):
        first = lacking[0]
        has, true = (_names(dataset, c) for c in (files[first].classes or (), sorted(tags[first])))
        found = f"{len(lacking)} of {len(tags)} files lack a class that their image shows ({first} has {has}, shows "
        fix = "check that the classes are those of this dataset in its order; maps that are not there count as misses"
        warnings.append(Problem(files[first].where, f"{found}{true})", fix))
    return [*errors, *_transposed(dataset, files)], warnings


def _another_order(dataset: Dataset, files: Mapping[str, MapFile], tags: Mapping[str, set[int]]) -> list[Problem]:
    """An error where classes are written under the numbers of others: where one is shown, another one is written."""
    shows: dict[int, set[str]] = {}
    written: dict[int, set[str]] = {}
    for image_id, true in tags.items():
        for c in true:
            shows.setdefault(c, set()).add(image_id)
        for c in files[image_id].classes or ():
            written.setdefault(c, set()).add(image_id)

    def shared(c: int, k: int) -> float:
        one, other = shows[c], written.get(k, set())
        return len(one & other) / len(one | other)

    moved = {}
    for c in sorted(shows):
        best = max(written, key=lambda k: shared(c, k), default=c)
        if len(shows[c]) >= FEW and shared(c, c) < MOST and shared(c, best) >= ORDERED:
            moved[c] = best
    if not moved:
        return []
    c, k = next(iter(moved.items()))
    first = min(shows[c] & written[k])
    found = f"classes are in another order: class {k} is written where {_name(dataset, c)}, class {c}, is shown"
    found += f", and so are {len(moved) - 1} more" if len(moved) > 1 else ""
    fix = f"write them in the dataset's order: {', '.join(f'{n} for {_name(dataset, n)}' for n in list(moved)[:4])}"
    return [Problem(files[first].where, found, fix)]


def odd_sizes(dataset: Dataset, files: Mapping[str, MapFile]) -> list[Problem]:
    """An error where maps have another aspect than their images though most have it; squares may stand for images of
    any aspect where most files are such squares."""
    fits, odd = 0, []
    for image_id, file in files.items():
        if file.size is None or 0 in file.size:
            continue
        (h, w), (height, width) = file.size, dataset.size(image_id)
        near = ASPECT + 1 / min(h, w)
        upright = abs(log(h / w) - log(height / width)) <= near
        # An image that is a square says nothing of whether maps are images squeezed into squares.
        fits += upright and abs(log(height / width)) > near
        if not upright:
            odd.append(image_id)
    turned = bool(_transposed(dataset, files))
    squares = fits <= len(odd) and all(files[i].size and len(set(files[i].size or ())) == 1 for i in odd)
    if not odd or turned or squares:
        return []
    (h, w), (height, width) = files[odd[0]].size or (0, 0), dataset.size(odd[0])
    found = (
        f"maps of {len(odd)} of {len(files)} files have not the aspect of their image: {h} rows of {w}, the image has "
    )
    found += f"{height} of {width} ({some_of(odd, 4)})"
    return [Problem(files[odd[0]].where, found, "write the maps of the whole image, at any resolution, rows first")]


def _dark(dataset: Dataset, files: Mapping[str, MapFile]) -> Problem | None:
    """A warning where most files of images that show a class have no map, or nothing above zero in any."""
    without = [i for i, file in files.items() if not file.lit]
    if len(without) <= MOST * len(files):
        return None
    missed = [i for i, true in _tags(dataset, without).items() if true]
    if len(missed) <= MOST * len(files):
        return None
    found = f"{len(missed)} of {len(files)} files hold nothing above zero, though their images show classes"
    return Problem(files[missed[0]].where, found, "write the CAMs again; nothing above zero is background everywhere")


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
