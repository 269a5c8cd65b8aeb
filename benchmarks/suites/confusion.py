"""Confusion matrices next to the official scripts' bincount per image over int64 lists."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from benchmarks import Case
from benchmarks.inputs import Maps, images
from benchmarks.reference.scores import scores
from harness.scoring.confusion import confusion


def cases(quick: bool) -> list[Case]:
    """VOC-like and COCO-like maps, and the worst case of random labels."""
    count = 4 if quick else 48

    def case(name: str, labels: int, noisy: bool, goal: float) -> Case:
        @functools.cache
        def inputs() -> tuple[list[Maps], list[NDArray[np.int64]], list[NDArray[np.int64]]]:
            maps = images(count, labels, noisy=noisy)
            return maps, [m.truth_HW.astype(np.int64) for m in maps], [m.pred_HW.astype(np.int64) for m in maps]

        def reference() -> NDArray[np.int64]:
            _, truths, preds = inputs()
            return scores(truths, preds, labels)

        def ours() -> NDArray[np.int64]:
            return sum((confusion(m.pred_HW, m.truth_HW, labels) for m in inputs()[0]), np.zeros((labels, labels), int))

        def equal() -> str:
            assert np.array_equal(reference(), ours())
            return "every count equal"

        unit = f"{count} maps of 375x500, {labels} labels"
        return Case(f"confusion {name}", reference, ours, equal, goal, prepare=inputs, unit=unit)

    return [case("voc", 21, False, 5.0), case("coco", 81, False, 5.0), case("random labels", 21, True, 2.0)]
