"""Pixels counted by true and predicted label, exactly, in int64 (design section 4, Scores).

A prediction of 255 means "no prediction": the pixel is a miss of its true class and nothing else.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE

Labels = NDArray[np.integer]
_DENSE_CHANGES = 0.12


def confusion(pred_HW: Labels, truth_HW: Labels, num_labels: int) -> NDArray[np.int64]:
    """Confusion matrix (K,K), rows truth, columns prediction, 255 in either left out.

    Raises ValueError for other values outside 0..K-1 and for shapes that differ.
    """
    return confusion_and_missed(pred_HW, truth_HW, num_labels)[0]


def confusion_and_missed(
    pred_HW: Labels, truth_HW: Labels, num_labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`confusion`, and per true class (K,) the pixels without a prediction. Raises as `confusion`."""
    if not 1 <= num_labels <= IGNORE:
        raise ValueError(f"num_labels must be 1..{IGNORE}, not {num_labels}")
    if pred_HW.shape != truth_HW.shape:
        raise ValueError(f"prediction is {pred_HW.shape}, truth is {truth_HW.shape}")
    pred, truth = as_bytes(pred_HW, "prediction"), as_bytes(truth_HW, "truth")
    size = num_labels + 2
    table = _table(pred, truth, num_labels)
    illegal = size - 1
    for name, counts, values in (("truth", table[illegal], truth), ("prediction", table[:, illegal], pred)):
        if counts.any():
            worst = values[(values >= num_labels) & (values != IGNORE)]
            raise ValueError(f"{name} holds label {int(worst[0])}; legal are 0..{num_labels - 1} and {IGNORE}")
    return table[:num_labels, :num_labels], table[:num_labels, num_labels]


def counts_from_confusion(conf_KK: NDArray[np.int64], missed_K: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """tp, fp, fn of each class (K,3) from a confusion matrix and the pixels without a prediction."""
    tp_K = np.diagonal(conf_KK)
    fn_K = conf_KK.sum(1) - tp_K
    if missed_K is not None:
        fn_K = fn_K + missed_K
    return np.stack([tp_K, conf_KK.sum(0) - tp_K, fn_K], axis=1).astype(np.int64)


def image_counts(pred_HW: Labels, truth_HW: Labels, num_labels: int) -> NDArray[np.int64]:
    """tp, fp, fn of each class (K,3) of one image. Raises as `confusion`."""
    return counts_from_confusion(*confusion_and_missed(pred_HW, truth_HW, num_labels))


def as_bytes(labels: Labels, name: str) -> NDArray[np.uint8]:
    """A label map as a flat uint8 array; ValueError when it is not of integers in 0..255."""
    if labels.dtype != np.uint8:
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{name} holds {labels.dtype}, not integer labels")
        if labels.size and (labels.min() < 0 or labels.max() > IGNORE):
            raise ValueError(f"{name} holds labels {labels.min()}..{labels.max()}, outside 0..{IGNORE}")
    return np.ascontiguousarray(labels, np.uint8).reshape(-1)


@lru_cache(maxsize=8)
def _folded(num_labels: int) -> NDArray[np.intp]:
    """For each of 256 values its row in the table: labels, then 255, then everything illegal."""
    rows = np.full(256, num_labels + 1, np.intp)
    rows[:num_labels] = np.arange(num_labels)
    rows[IGNORE] = num_labels
    rows.setflags(write=False)
    return rows


def _table(pred: NDArray[np.uint8], truth: NDArray[np.uint8], num_labels: int) -> NDArray[np.int64]:
    """Pairs counted by truth, prediction (K+2,K+2), in the form that suits how often neighbours differ."""
    if truth.size == 0:
        return np.zeros((num_labels + 2, num_labels + 2), np.int64)
    changes = truth[1:] != truth[:-1]
    changes |= pred[1:] != pred[:-1]
    if np.count_nonzero(changes) > _DENSE_CHANGES * changes.size and truth.size > 1 << 14:
        return _dense(pred, truth, num_labels)
    return _runs(pred, truth, changes, num_labels)


def _runs(
    pred: NDArray[np.uint8], truth: NDArray[np.uint8], changes: NDArray[np.bool_], num_labels: int
) -> NDArray[np.int64]:
    """Count stretches of equal pairs by their lengths; `changes` marks where one ends."""
    size = num_labels + 2
    ends = np.append(np.flatnonzero(changes), truth.size - 1)
    lengths = np.empty(len(ends))
    lengths[0] = ends[0] + 1
    np.subtract(ends[1:], ends[:-1], out=lengths[1:])
    rows = _folded(num_labels)
    index = rows[truth[ends]] * size + rows[pred[ends]]
    # Weights are float64: whole numbers below 2^53 are exact, far above any image.
    sums = np.bincount(index, weights=lengths, minlength=size * size)
    return sums.astype(np.int64).reshape(size, size)


def _dense(pred: NDArray[np.uint8], truth: NDArray[np.uint8], num_labels: int) -> NDArray[np.int64]:
    """Count every pixel over all 256 x 256 pairs, then fold the rare values."""
    pairs = truth.astype(np.uint16)
    pairs <<= 8
    pairs |= pred
    counts = np.bincount(pairs, minlength=1 << 16).reshape(256, 256)
    other = slice(num_labels, IGNORE)
    columns = np.concatenate([counts[:, :num_labels], counts[:, IGNORE:], counts[:, other].sum(1, keepdims=True)], 1)
    table = np.concatenate([columns[:num_labels], columns[IGNORE:], columns[other].sum(0, keepdims=True)])
    return table.astype(np.int64)
