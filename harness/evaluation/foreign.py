"""`preds=<folder>` and `cams=<folder>`: what another program predicted, counted like our own."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE
from harness.datasets.io.images import merged, read_mask
from harness.datasets.io.reading import read_many
from harness.engine.inference.counting import Scored, map_curve
from harness.engine.inference.predictions import ScoreMaps
from harness.errors import BadInput, Problem
from harness.scoring.confusion import image_counts

MASKS = (".png",)
MAPS = (".npz", ".npy")
USUAL_THRESHOLD = 0.5
"""Background score of `protocol=fixed`: the VOC value of fsr.md and toco.md."""


@dataclass(frozen=True)
class Counter:
    """Reads and counts one image's file; runs in other processes."""

    dataset: Dataset
    files: dict[str, Path]
    grid: NDArray[np.float64] | None
    """Thresholds, for maps; None counts label maps."""

    def __call__(self, image_id: str) -> Scored | list[Problem]:
        """The image's counts, or what is wrong with its file."""
        path = self.files[image_id]
        truth = self.dataset.mask(image_id)
        try:
            if self.grid is None:
                return image_counts(read_labels(path, truth, self.dataset), truth, self.dataset.num_labels)
            maps = read_maps(path, self.dataset)
            present = np.flatnonzero(self.dataset.tags(image_id) > 0)
            kept = np.isin(maps.classes, present)
            maps = ScoreMaps(maps.classes[kept], {"cam": maps.scores["cam"][kept]})
            return map_curve(self.dataset, maps, "cam", truth, self.grid)
        except BadInput as e:
            return e.problems


def find_files(folder: Path, ids: Iterable[str], suffixes: tuple[str, ...], word: str) -> dict[str, Path]:
    """The file of each image: `<id><suffix>`, where an id with `/` is a path in the folder or has `~` instead.

    Raises BadInput for a folder that is not there and with the ids that have no file.
    """
    if not folder.is_dir():
        raise BadInput(Problem(word, f"{folder} is no folder", f"give the folder of {' or '.join(suffixes)} files"))
    found, missing = {}, []
    for image_id in ids:
        stems = dict.fromkeys((image_id, image_id.replace("/", "~")))
        path = next((p for s in stems for x in suffixes if (p := folder / f"{s}{x}").is_file()), None)
        if path is None:
            missing.append(image_id)
        else:
            found[image_id] = path
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        names = ", ".join(missing[:5]) + more
        fix = f"one {' or '.join(suffixes)} per image of the split, named by its id, / as ~; or choose another split="
        raise BadInput(Problem(word, f"{folder} has no file for {len(missing)} images: {names}", fix))
    return found


def count(counter: Counter, ids: tuple[str, ...], *, what: str, processes: int | None = None) -> list[Scored]:
    """Counts of every image, in threads or processes. Raises BadInput with everything that is wrong, at once."""
    out: list[Scored] = []
    problems: list[Problem] = []
    # Cores are shared out by image; a forked process could also wait for ever for threads that it does not have.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for result in read_many(counter, ids, what=what, processes=processes):
            if isinstance(result, list):
                problems += result
            else:
                out.append(result)
    finally:
        torch.set_num_threads(threads)
    if problems:
        raise BadInput(merged(problems))
    return out


def read_labels(path: Path, truth_HW: NDArray[np.uint8], dataset: Dataset) -> NDArray[np.uint8]:
    """A label map of the truth's size, 255 = no prediction. Raises BadInput for colours, sizes and unknown labels."""
    labels_HW = read_mask(path)
    if labels_HW.shape != truth_HW.shape:
        (h, w), (have_h, have_w) = truth_HW.shape, labels_HW.shape
        found = f"{have_w}x{have_h} pixels, its image has {w}x{h}"
        raise BadInput(Problem(str(path), found, "save masks at the size of the image, resized by nearest neighbour"))
    unknown = [int(v) for v in np.unique(labels_HW) if v >= dataset.num_labels and v != IGNORE]
    if unknown:
        legal = f"0..{dataset.num_labels - 1} and {IGNORE}"
        fix = f"labels of {dataset.name} are {legal}; for no prediction write {IGNORE}"
        raise BadInput(Problem(str(path), f"holds label {unknown[0]}", fix))
    return labels_HW


def read_maps(path: Path, dataset: Dataset) -> ScoreMaps:
    """Score maps of one image in [0,1], of any size.

    `.npz`: `classes` (n,), foreground indices from 0, and `cam` (n,h,w); `.npy`: (C,h,w), every class in order.
    Raises BadInput for pickled objects, wrong shapes, classes that are not there and values outside [0,1].
    """
    load = _npz if path.suffix == ".npz" else _npy
    try:
        classes, maps = load(path.read_bytes(), dataset.num_classes)
    except (OSError, ValueError, KeyError, EOFError) as e:
        pickled = "pickle" in str(e)
        found = "holds pickled objects" if pickled else f"cannot be read: {str(e).splitlines()[0]:.150}"
        fix = "python -m harness.data import-cams converts the field's pickled folders" if pickled else _LAYOUT
        raise BadInput(Problem(str(path), found, fix)) from e
    problem = _wrong(classes, maps, dataset.num_classes)
    if problem:
        raise BadInput(Problem(str(path), problem, _LAYOUT))
    return ScoreMaps(classes.astype(np.int16), {"cam": maps.astype(np.float32, copy=False)})


_LAYOUT = "see docs/evaluate.md: .npz with classes (n,) and cam (n,h,w) in [0,1], or .npy (C,h,w)"


def _npz(data: bytes, classes: int) -> tuple[NDArray, NDArray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as f:
        return f["classes"], f["cam"]


def _npy(data: bytes, classes: int) -> tuple[NDArray, NDArray]:
    maps = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(maps, np.ndarray):
        raise ValueError("an archive, not an array")
    return np.arange(len(maps)) if maps.ndim else np.zeros(0, np.int64), maps


def _wrong(classes: NDArray, maps: NDArray, known: int) -> str | None:
    if maps.ndim != 3 or maps.dtype.kind not in "fui" or classes.shape != maps.shape[:1]:
        return f"maps of shape {maps.shape} ({maps.dtype}) for classes of shape {classes.shape}"
    if not len(classes):
        return None
    if classes.dtype.kind not in "iu" or len(np.unique(classes)) < len(classes):
        return "classes are not whole numbers, each once"
    if classes.min() < 0 or classes.max() >= known:
        return f"class {int(classes.max() if classes.max() >= known else classes.min())}; known are 0..{known - 1}"
    if not maps.size or not np.isfinite(maps).all() or maps.min() < 0 or maps.max() > 1:
        return "maps are empty, not finite, or outside [0,1]"
    return None
