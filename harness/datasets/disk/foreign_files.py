"""Files of other programs, one for each image: found by the image's id, read and held against the dataset.

Axes: C foreground classes, n classes that occur, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.images import Maps
from harness.api.vocabulary import IGNORE
from harness.datasets.disk.facts import MaskFacts, facts_of
from harness.datasets.io.absent import of_other_names
from harness.datasets.io.archives import read_npz, read_plain_npy
from harness.datasets.io.images import read_index, some_of
from harness.datasets.io.palettes import misplaced
from harness.errors import BadInput, Problem

MASKS = (".png",)
MAPS = (".npz", ".npy")


def find_files(
    folder: Path, ids: Iterable[str], suffixes: tuple[str, ...], word: str, *, instead: str = ""
) -> dict[str, Path]:
    """The file of each image: `<id><suffix>`, where an id with `/` is a path in the folder or has `~` instead.

    Raises BadInput for a folder that is not there and with the ids that have no file; `instead` is another way out.
    """
    found, problems = files_there(folder, ids, suffixes, word, instead=instead)
    if problems:
        raise BadInput(problems)
    return found


def files_there(
    folder: Path, ids: Iterable[str], suffixes: tuple[str, ...], word: str, *, instead: str = ""
) -> tuple[dict[str, Path], list[Problem]]:
    """As `find_files`, of the images that have a file; and what is wrong with the others. Raises BadInput for a folder
    that is not there."""
    if not folder.is_dir():
        raise BadInput(Problem(word, f"{folder} is no folder", f"give the folder of {' or '.join(suffixes)} files"))
    ids = tuple(ids)
    found = {image_id: path for image_id in ids if (path := _file_of(folder, image_id, suffixes)) is not None}
    missing = [image_id for image_id in ids if image_id not in found]
    if not missing:
        return found, []
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    told = f"{folder} has no file for {len(missing)} images: {', '.join(missing[:5])}{more}"
    fix = f"one {' or '.join(suffixes)} an image, named by its id, / as ~{instead}"
    if not found and (below := _below(folder, missing, suffixes)):
        told, fix = f"{told}; they lie in {below.name}", f"{word}={below}"
    elif not found and (others := of_other_names(folder, missing, suffixes)):
        names, fix = others
        told += f"; {len(names)} files {some_of(names, 3)} are there instead"
    return found, [Problem(word, told, fix)]


def _file_of(folder: Path, image_id: str, suffixes: tuple[str, ...]) -> Path | None:
    stems = dict.fromkeys((image_id, image_id.replace("/", "~")))
    endings = (*suffixes, *(suffix.upper() for suffix in suffixes))
    return next((path for s in stems for x in endings if (path := folder / f"{s}{x}").is_file()), None)


def _below(folder: Path, ids: list[str], suffixes: tuple[str, ...]) -> Path | None:
    """A folder in `folder` that has the files of all these images."""
    inner = (path for path in sorted(folder.iterdir()) if path.is_dir())
    return next((path for path in inner if all(_file_of(path, image_id, suffixes) for image_id in ids)), None)


def read_labels(
    path: Path, size: tuple[int, int], dataset: Dataset, colours: Mapping[int, tuple[int, int, int]]
) -> tuple[NDArray[np.uint8], MaskFacts]:
    """A label map of its image's size (H,W), 255 = no prediction, and its facts.

    Raises BadInput for colours, sizes, unknown labels, and a palette that gives a label another one's
    colour of `colours`.
    """
    labels_HW, palette = read_index(path)
    if labels_HW.shape != size:
        (h, w), (have_h, have_w) = size, labels_HW.shape
        found = f"{have_w}x{have_h} pixels, its image has {w}x{h}"
        fix = "save masks at the size of the image, resized by nearest neighbour"
        if (have_h, have_w) == (w, h):
            found, fix = f"{found}: it is transposed", "save them with the rows of the image as rows"
        raise BadInput(Problem(str(path), found, fix))
    facts = facts_of(labels_HW, palette)
    unknown = [label for label in facts.labels if label >= dataset.num_labels and label != IGNORE]
    if unknown:
        legal = f"0..{dataset.num_labels - 1} and {IGNORE}"
        fix = f"labels of {dataset.name} are {legal}; for no prediction write {IGNORE}"
        raise BadInput(Problem(str(path), f"holds label {unknown[0]}", fix))
    wrong = misplaced(facts, colours, dataset.class_names)
    if wrong is not None:
        fix = "the numbers are those of a colour table made anew: write label numbers, not the order of the colours"
        raise BadInput(Problem(str(path), wrong, fix))
    return labels_HW, facts


def arrays_of(path: Path, known: int) -> tuple[NDArray, NDArray, bool]:
    """Classes and maps as they lie in the file, and whether it lists the classes itself.

    `.npz`: `classes` (n,), foreground indices from 0, and `cam` (n,h,w); `.npy`: (C,h,w), every class in order.
    Raises BadInput for pickled objects, and for archives that are damaged, encrypted or larger than any CAM.
    """
    if path.suffix.lower() == ".npz":
        held = read_npz(path, ("classes", "cam"), _LAYOUT)
        return held["classes"], held["cam"], True
    content = read_plain_npy(path)
    return np.arange(len(content)) if content.ndim else np.zeros(0, np.int64), content, False


def checked_maps(path: Path, classes: NDArray, maps: NDArray, dataset: Dataset) -> Maps:
    """The maps that `arrays_of` found, in [0,1] and of classes of the dataset. Raises BadInput naming the file."""
    problem = _wrong(classes, maps, dataset.num_classes)
    if problem:
        raise BadInput(Problem(str(path), problem, _LAYOUT))
    return Maps(classes.astype(np.int16), {"cam": [maps.astype(np.float32, copy=False)]}, fused=False)


_LAYOUT = "see docs/evaluate.md: .npz with classes (n,) and cam (n,h,w) in [0,1], or .npy (C,h,w)"


def _wrong(classes: NDArray, maps: NDArray, known: int) -> str | None:
    if maps.ndim != 3 or maps.dtype.kind not in "fui" or classes.shape != maps.shape[:1]:
        return f"maps of shape {maps.shape} ({maps.dtype}) for classes of shape {classes.shape}"
    if not len(classes):
        return None
    if classes.dtype.kind not in "iu" or len(np.unique(classes)) < len(classes):
        return "classes are not whole numbers, each once"
    if len(maps) == known + 1 == classes.max() + 1:
        return f"{len(maps)} maps for {known} classes: is the first one the background? leave it out"
    if maps.shape[2] in (known, known + 1) and classes.max() >= known:
        return f"maps of shape {maps.shape}: (C,h,w) is expected, the classes first"
    if classes.min() < 0 or classes.max() >= known:
        return f"class {int(classes.max() if classes.max() >= known else classes.min())}; known are 0..{known - 1}"
    if not maps.size or not np.isfinite(maps).all() or maps.min() < 0 or maps.max() > 1:
        return "maps are empty, not finite, or outside [0,1]"
    return None
