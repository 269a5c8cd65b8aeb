"""Confusion matrices and threshold curves as published evaluation scripts compute them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]


def fast_hist(truth_N: Labels, pred_N: Labels, num_labels: int) -> NDArray[np.int64]:
    """Confusion matrix of flat labels by a mask, a fused index and bincount."""
    mask = (truth_N >= 0) & (truth_N < num_labels)
    fused = num_labels * truth_N[mask].astype(int) + pred_N[mask]
    return np.bincount(fused, minlength=num_labels**2).reshape(num_labels, num_labels)


def scores(truths: Sequence[Labels], preds: Sequence[Labels], num_labels: int) -> NDArray[np.int64]:
    """Confusion matrix of lists of label maps, image by image; the lists hold int64."""
    hist = np.zeros((num_labels, num_labels), np.int64)
    for truth, pred in zip(truths, preds, strict=True):
        hist += fast_hist(truth.flatten(), pred.flatten(), num_labels)
    return hist


def threshold_loop(
    cams: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    truths: Sequence[Labels],
    thresholds: Sequence[float],
    num_labels: int,
) -> list[NDArray[np.int64]]:
    """One confusion matrix per background score: pad, argmax and count every image anew for each.

    `cams` are the maps (k,H,W) of the present classes and their label values.
    """
    found = []
    for threshold in thresholds:
        preds = []
        for cam_kHW, values in cams:
            padded = np.pad(cam_kHW, ((1, 0), (0, 0), (0, 0)), constant_values=np.float32(threshold))
            keys = np.pad(values, (1, 0))
            preds.append(keys[np.argmax(padded, axis=0)])
        found.append(scores(truths, preds, num_labels))
    return found
