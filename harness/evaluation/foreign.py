"""`preds=<folder>` and `cams=<folder>`: what another program predicted, counted like our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.images import Maps
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.foreign_files import arrays_of, checked_maps, read_labels
from harness.datasets.io.images import merged
from harness.datasets.io.palettes import judge_palettes
from harness.datasets.io.reading import read_many
from harness.datasets.tools.fitting_labels import Pairs, judge_labels, pairs_of
from harness.datasets.tools.fitting_maps import MapFile, judge_maps
from harness.engine.inference.counting import Scored, map_curve
from harness.errors import BadInput, Problem
from harness.scoring.confusion import confusion_and_missed, counts_from_confusion

USUAL_THRESHOLD = 0.5
"""Background score of `protocol=fixed`: the VOC value of fsr.md and toco.md."""


@dataclass(frozen=True)
class Counted:
    """What came of one image's file: counts, and what tells whether it is of this dataset; or its problems."""

    scored: Scored | None
    maps: MapFile | None = None
    facts: MaskFacts | None = None
    pairs: Pairs | None = None
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
                labels_HW, facts = read_labels(path, truth.shape, self.dataset, self.colours)
                conf_KK, missed_K = confusion_and_missed(labels_HW, truth, self.dataset.num_labels)
                counts = counts_from_confusion(conf_KK, missed_K)
                return Counted(counts, facts=facts, pairs=pairs_of(conf_KK, missed_K))
            classes, scores, listed = arrays_of(path, self.dataset.num_classes)
            held = MapFile.of(path, classes, scores, listed)
            maps = checked_maps(path, classes, scores, self.dataset)
            present = np.flatnonzero(self.dataset.tags(image_id) > 0)
            kept = np.isin(maps.classes, present)
            maps = Maps(maps.classes[kept], {"cam": [maps.scales["cam"][0][kept]]}, fused=False)
            return Counted(map_curve(self.dataset, maps, "cam", truth, self.grid), held)
        except BadInput as e:
            return Counted(None, held, problems=tuple(e.problems))


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
        pairs = {i: one.pairs for i, one in zip(ids, found, strict=True) if one.pairs is not None}
        numbers = judge_labels(counter.dataset, pairs, folder)
        # A palette of another order explains numbers of another order.
        unfit, warnings = unfit or numbers[0], [*warnings, *numbers[1]]
    problems = [problem for one in found for problem in one.problems]
    if unfit or problems:
        raise BadInput(unfit or merged(problems))
    return [one.scored for one in found if one.scored is not None], warnings
