"""`preds=<folder>` and `cams=<folder>`: what another program predicted, counted like our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.images import Maps
from harness.api.vocabulary import IGNORE
from harness.datasets.disk.facts import MaskFacts, facts_of
from harness.datasets.disk.together import judge_palettes, misplaced
from harness.datasets.io.archives import read_npz, read_plain_npy
from harness.datasets.io.images import merged, read_index
from harness.datasets.io.reading import read_many
from harness.datasets.tools.fitting_maps import MapFile, judge_maps
from harness.engine.inference.counting import Scored, map_curve
from harness.errors import BadInput, Problem
from harness.scoring.confusion import image_counts

MASKS = (".png",)
MAPS = (".npz", ".npy")
USUAL_THRESHOLD = 0.5
"""Background score of `protocol=fixed`: the VOC value of fsr.md and toco.md."""


@dataclass(frozen=True)
class Counted:
    """What came of one image's file: counts, and what tells whether it is of this dataset; or its problems."""

    scored: Scored | None
    maps: MapFile | None = None
    facts: MaskFacts | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Counter:
    """Reads and counts one image's file; runs in other processes."""

    dataset: Dataset
    files: dict[str, Path]
    grid: NDArray[np.float64] | None
    """Thresholds, for maps; None counts label maps."""
    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    """The palette of the dataset's own masks, which those of label maps must not contradict."""

    def __call__(self, image_id: str) -> Counted:
        """The image's counts, or what is wrong with its file."""
        path = self.files[image_id]
        truth = self.dataset.mask(image_id)
        held = None
        try:
            if self.grid is None:
                labels_HW, facts = read_labels(path, truth, self.dataset, self.colours)
                return Counted(image_counts(labels_HW, truth, self.dataset.num_labels), facts=facts)
            classes, scores, listed = arrays_of(path, self.dataset.num_classes)
            held = _held(path, classes, scores, listed)
            maps = checked_maps(path, classes, scores, self.dataset)
            present = np.flatnonzero(self.dataset.tags(image_id) > 0)
            kept = np.isin(maps.classes, present)
            maps = Maps(maps.classes[kept], {"cam": [maps.scales["cam"][0][kept]]}, fused=False)
            return Counted(map_curve(self.dataset, maps, "cam", truth, self.grid), held)
        except BadInput as e:
            return Counted(None, held, problems=tuple(e.problems))


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


def count(
    counter: Counter, ids: tuple[str, ...], *, what: str, processes: int | None = None
) -> tuple[list[Scored], list[Problem]]:
    """Counts of every image, in threads or processes, and warnings on the files as a whole.

    Raises BadInput with everything that is wrong, at once: first what is wrong with all of them (numbering, transposed
    maps, a palette a file), which explains what is wrong with each.
    """
    # Cores are shared out by image; a forked process could also wait for ever for threads that it does not have.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = list(read_many(counter, ids, what=what, processes=processes))
    finally:
        torch.set_num_threads(threads)
    maps = {i: one.maps for i, one in zip(ids, found, strict=True) if one.maps is not None}
    unfit, warnings = judge_maps(counter.dataset, maps) if maps else ([], [])
    facts = [one.facts for one in found if one.facts is not None]
    if facts:
        folder = str(counter.files[ids[0]].parent)
        unfit, warnings = judge_palettes(facts, counter.dataset.class_names, folder)
    problems = [problem for one in found for problem in one.problems]
    if unfit or problems:
        raise BadInput(unfit or merged(problems))
    return [one.scored for one in found if one.scored is not None], warnings


def read_labels(
    path: Path, truth_HW: NDArray[np.uint8], dataset: Dataset, colours: Mapping[int, tuple[int, int, int]]
) -> tuple[NDArray[np.uint8], MaskFacts]:
    """A label map of the truth's size, 255 = no prediction, and its facts.

    Raises BadInput for colours, sizes, unknown labels, and a palette that gives a label another one's
    colour of `colours`.
    """
    labels_HW, palette = read_index(path)
    if labels_HW.shape != truth_HW.shape:
        (h, w), (have_h, have_w) = truth_HW.shape, labels_HW.shape
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
    if path.suffix == ".npz":
        held = read_npz(path, ("classes", "cam"), _LAYOUT)
        return held["classes"], held["cam"], True
    content = read_plain_npy(path)
    return np.arange(len(content)) if content.ndim else np.zeros(0, np.int64), content, False


def _held(path: Path, classes: NDArray, maps: NDArray, listed: bool) -> MapFile:
    whole = listed and classes.ndim == 1 and classes.dtype.kind in "iu"
    size = (int(maps.shape[1]), int(maps.shape[2])) if maps.ndim == 3 and len(maps) else None
    return MapFile(str(path), tuple(classes.tolist()) if whole else None, size)


def checked_maps(path: Path, classes: NDArray, maps: NDArray, dataset: Dataset) -> Maps:
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
