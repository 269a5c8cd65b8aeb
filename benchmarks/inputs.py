"""Inputs like those of VOC: blobs with an ignored border, predictions that are warped truth, smooth CAMs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 375, 500
BORDER = 4
"""Pixels of the ignored border around an object."""


@dataclass(frozen=True)
class Maps:
    """Label maps of one image, and the CAMs of its present classes."""

    truth_HW: NDArray[np.uint8]
    pred_HW: NDArray[np.uint8]
    cam_kHW: NDArray[np.float32]
    labels_k: NDArray[np.int64]


def images(count: int, num_labels: int, *, noisy: bool = False) -> list[Maps]:
    """`count` seeded images of 375x500 with one to four elliptic objects; `noisy`: every pixel random."""
    rng = np.random.default_rng(0)
    return [_noise(rng, num_labels) if noisy else _blobs(rng, num_labels) for _ in range(count)]


def _noise(rng: np.random.Generator, num_labels: int) -> Maps:
    truth, pred = rng.integers(0, num_labels, (2, HEIGHT, WIDTH), dtype=np.uint8)
    cam = rng.random((2, HEIGHT, WIDTH), dtype=np.float32)
    return Maps(truth, pred, cam, np.array([1, 2]))


def _blobs(rng: np.random.Generator, num_labels: int) -> Maps:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    truth, pred = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    cams: dict[int, NDArray[np.float32]] = {}
    for _ in range(int(rng.integers(1, 5))):
        label = int(rng.integers(1, num_labels))
        cy, cx = rng.uniform(60, HEIGHT - 60), rng.uniform(80, WIDTH - 80)
        height, width = rng.uniform(30, 110), rng.uniform(40, 150)
        radius = np.hypot((y - cy) / height, (x - cx) / width)
        truth[radius < 1 + BORDER / height] = 255
        truth[radius < 1] = label
        moved = np.hypot((y - cy - rng.normal(0, 12)) / height, (x - cx - rng.normal(0, 12)) / width)
        pred[moved < rng.uniform(0.7, 1.2)] = label if rng.random() < 0.9 else int(rng.integers(1, num_labels))
        cam = np.exp(-0.7 * moved * moved).astype(np.float32)
        cams[label] = np.maximum(cams.get(label, np.float32(0)), cam)
    labels = sorted(cams)
    return Maps(truth, pred, np.stack([cams[c] for c in labels]), np.array(labels))
