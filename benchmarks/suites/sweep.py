"""Curves over 100 thresholds next to the field's loop: pad, argmax and count once per threshold."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import Case
from benchmarks.inputs import Maps, images
from benchmarks.reference.scores import threshold_loop
from harness.scoring.curves import THRESHOLDS, Curve, ImageCurve


def cases(quick: bool) -> list[Case]:
    """VOC-like CAMs with 21 and 81 labels."""
    count = 2 if quick else 12
    thresholds = [float(np.float32(t)) for t in THRESHOLDS]

    def case(name: str, labels: int) -> Case:
        @functools.cache
        def inputs() -> list[Maps]:
            return images(count, labels)

        def reference() -> list[NDArray[np.int64]]:
            cams = [(m.cam_kHW, m.labels_k) for m in inputs()]
            return threshold_loop(cams, [m.truth_HW for m in inputs()], thresholds, labels)

        def one(m: Maps) -> ImageCurve:
            score, slot = torch.from_numpy(m.cam_kHW).max(dim=0)
            best = m.labels_k.astype(np.uint8)[slot.numpy()]
            return ImageCurve.of(score.numpy(), best, m.truth_HW, THRESHOLDS, labels)

        def ours() -> Curve:
            return Curve.sum(one(m) for m in inputs())

        def equal() -> str:
            curve = ours()
            for j, conf in enumerate(reference()):
                tp = np.diag(conf)
                expected = np.stack([tp, conf.sum(0) - tp, conf.sum(1) - tp], -1)
                assert np.array_equal(curve.counts(j), expected), f"threshold {thresholds[j]}"
            return "every count equal at every threshold"

        unit = f"{count} images of 375x500, {labels} labels, 100 thresholds"
        return Case(f"curve {name}", reference, ours, equal, 100.0, prepare=inputs, unit=unit)

    return [case("voc", 21), case("coco", 81)]
