"""Whether another program's label maps are of this dataset: its numbers against the true ones, pixel by pixel.

Axes: K labels, the last column of P pairs is "no prediction".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE
from harness.datasets.io.images import some_of
from harness.errors import Problem

MOST = 0.5
"""Share of pixels, or of classes, that must be wrong in one way for it to be said."""
Pairs = NDArray[np.int64]
"""What one file holds, (n,3): true label, predicted label (255 = none) and their pixels, for the pairs that occur."""


def pairs_of(conf_KK: NDArray[np.int64], missed_K: NDArray[np.int64]) -> Pairs:
    """The pairs of one image from its confusion matrix and its pixels without a prediction."""
    table = np.concatenate([conf_KK, missed_K[:, None]], 1)
    true, predicted = np.nonzero(table)
    pixels = table[true, predicted]
    return np.stack([true, np.where(predicted == len(conf_KK), IGNORE, predicted), pixels], 1)


def judge_labels(dataset: Dataset, files: Mapping[str, Pairs], where: str) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings on the label maps of a folder, taken together.

    Errors: no class in any file though pixels are 255; labels that fit the masks once all are moved by one. Warnings,
    of which the first that holds explains the others: background everywhere; 255 where background is meant;
    classes that most pixels call by another one's number; predicted classes that their images do not hold.
    """
    labels, first = dataset.num_labels, int(dataset.has_background)
    table = np.zeros((labels, labels + 1), np.int64)
    astray = 0
    for pairs in files.values():
        true, predicted = pairs[:, 0], np.where(pairs[:, 1] == IGNORE, labels, pairs[:, 1])
        np.add.at(table, (true, predicted), pairs[:, 2])
        astray += int(pairs[(predicted >= first) & (predicted < labels) & ~np.isin(predicted, true), 2].sum())
    classes = table[:, first:labels].sum()
    if not table[first:].any():
        return [], []
    if not classes:
        if table[:, labels].any():
            zero = "0 and " if first and table[:, 0].any() else ""
            found = f"no class in any of {len(files)} files: they hold {zero}{IGNORE} alone"
            fix = f"255 is no prediction: write the number of its class into each pixel ({first}, {first + 1}, ...)"
            return [Problem(where, found, fix)], []
        found = f"all pixels of all {len(files)} files are {dataset.class_names[0]}: no class is predicted"
        return [], [Problem(where, found, "check that these are label numbers, and that the network was trained")]
    moved = _moved(dataset, table[:, :labels])
    if moved is not None:
        return [Problem(where, *moved)], []
    warning = _background_as_none(dataset, table) or _called_otherwise(dataset, table)
    if warning is None and astray > MOST * classes:
        found = f"{100 * astray / classes:.0f} % of the predicted pixels of classes are of classes that the image lacks"
        fix = "check that each file is of the image that it is named by, and that labels count in the dataset's order"
        warning = found, fix
    return [], [Problem(where, *warning)] if warning else []


def _moved(dataset: Dataset, table_KK: NDArray[np.int64]) -> tuple[str, str] | None:
    """What to say where two classes or more, and most pixels of all, have their labels one too low or too high."""
    first = int(dataset.has_background)
    if first and table_KK[0, 0] > MOST * table_KK[0].sum():
        return None  # the background would have moved as well
    for shift in (1, -1):
        # A class whose moved label is the background, or none, looks as if it were not predicted at all.
        told = [c for c in range(first, len(table_KK)) if first <= c - shift < len(table_KK) and table_KK[c].any()]
        hits = {c: int(table_KK[c, c - shift]) for c in told}
        pixels, right = int(table_KK[told].sum()), sum(int(table_KK[c, c]) for c in told)
        several = sum(hits[c] > MOST * table_KK[c].sum() for c in told) > 1
        if several and sum(hits.values()) > max(MOST * pixels, 2 * right):
            word = "more" if shift > 0 else "less"
            share = _share(sum(hits.values()), pixels)
            found = f"labels fit the masks with one {word}: {share} of the pixels of classes, {_share(right, pixels)} "
            return f"{found}as they are", f"write them with 1 {word}, so that 0 is {dataset.class_names[0]!r}"
    return None


def _background_as_none(dataset: Dataset, table: NDArray[np.int64]) -> tuple[str, str] | None:
    """What to say where the background is nowhere predicted and 255 lies on most of it."""
    if not dataset.has_background or table[:, 0].any() or table[0, -1] <= MOST * table[0].sum():
        return None
    found = f"background (0) is in no file, and 255 lies on {_share(table[0, -1], table[0].sum())} of it"
    return found, "255 is no prediction and counts as a miss: write background as 0, if that is meant"


def _called_otherwise(dataset: Dataset, table: NDArray[np.int64]) -> tuple[str, str] | None:
    """What to say where most classes are predicted as others, each as one of its own."""
    first, labels = int(dataset.has_background), dataset.num_labels
    shown = [c for c in range(first, labels) if table[c].any()]
    best = {c: first + int(table[c, first:labels].argmax()) for c in shown}
    other = {c: b for c, b in best.items() if b != c and table[c, b] > MOST * table[c].sum()}
    if len(set(other.values())) < 2 or len(set(other.values())) <= MOST * len(shown):
        return None
    names = dataset.class_names
    told = some_of((f"{names[c]} as {names[b]}" for c, b in other.items()), 3)
    found = f"{len(other)} of {len(shown)} classes are predicted as another one ({told})"
    return found, f"check that labels are numbered in the dataset's order: {some_of(names, 4)}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
