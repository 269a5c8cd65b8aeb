"""One network and what it says of one image: the passes of scoring, on an image that has no truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.api.images import BACKGROUND, Maps
from harness.api.inference import Inference
from harness.api.method import Method
from harness.datasets.io.image_files import fuse, labels_at
from harness.engine.inference.counting import Target, occurring
from harness.engine.inference.passes import PIXELS, probabilities
from harness.engine.inference.predictions import MAPS, forward
from harness.engine.scorer import Scorer
from harness.engine.session import LocalSession
from harness.prediction.photos import Labels, Photos, smaller
from harness.scoring.crf import NONE, PRESETS, crf_labels

SCORES = 1 << 28
"""Numbers in an image's scores (K,H,W) that are held at once: 1 GiB."""
STRIP = 256
"""Rows of a large photo that are enlarged and decided at once."""


@dataclass(frozen=True)
class Predicted:
    """What a network says of an image."""

    labels_HW: NDArray[np.uint8]
    """At the image's own size."""
    scores: Mapping[str, NDArray[Any]]
    """Of a segmenter `probabilities` float16 (K,H,W); of maps `classes` int16 (n,), foreground classes from 0, and
    `cam` float16 (n,H,W) in [0,1], as `harness.evaluate cams=` reads them. Empty where they were not asked for."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network with its weights, and how it sees an image."""

    method: Method
    labels: Labels
    target: Target
    how: Inference
    """The protocol of segmenters; maps are made at the training size, as in scoring."""
    crop: int
    threshold: float
    """Above it a map is foreground."""
    bf16: bool = False
    device: str = "cpu"

    @property
    def limit(self) -> int:
        """Pixels of the largest image that is seen as it is; a larger one is seen at that size."""
        return min(PIXELS, SCORES // len(self.labels.class_names))

    def predict(
        self, image_HW3: NDArray[np.uint8], tags_C: NDArray[np.float32] | None = None, *, scores: bool = False
    ) -> Predicted:
        """Labels of an RGB image of any size, and with `scores` what they were decided from.

        `tags_C`, the foreground classes that it is known to hold, rules all others out.
        """
        size = (int(image_HW3.shape[0]), int(image_HW3.shape[1]))
        seen_HW3 = smaller(image_HW3, self.limit)
        known = {} if tags_C is None else {"photo": tags_C}
        photos = Photos(self.labels, {"photo": seen_HW3}, known)
        scorer = Scorer(
            dataset=photos,
            inference=self.how,
            crop=self.crop,
            cam_threshold=self.threshold,
            bf16=self.bf16,
            session=LocalSession(device=self.device),
            threads=1,
            report_progress=lambda *_: None,
        )
        seen = (int(seen_HW3.shape[0]), int(seen_HW3.shape[1]))
        wanted = frozenset({self.target.name})
        maps, fused = forward(scorer, self.method, ["photo"], [seen], wanted, self.target.weights, self.how)
        if self.target.name in MAPS:
            return self._of_maps(maps[0], size, scores)
        ((_, scores_KHW),) = fused
        return self._of_scores(scores_KHW, seen_HW3, size, tags_C, scores)

    def _of_maps(self, maps: Maps, size: tuple[int, int], scores: bool) -> Predicted:
        name = self.target.name
        labels_HW = labels_at(maps, name, size, self.threshold, self.labels.has_background)
        if not scores:
            return Predicted(labels_HW, {})
        front = maps.classes != BACKGROUND
        own = fuse(maps, name, size).half().numpy()[front]
        return Predicted(labels_HW, {"classes": maps.classes[front], "cam": own})

    def _of_scores(
        self,
        scores_KHW: Tensor,
        image_HW3: NDArray[np.uint8],
        size: tuple[int, int],
        tags_C: NDArray[np.float32] | None,
        scores: bool,
    ) -> Predicted:
        if tags_C is not None:
            absent = np.concatenate([np.zeros(int(self.labels.has_background)), tags_C == 0]).astype(bool)
            scores_KHW[torch.from_numpy(absent).to(scores_KHW.device)] = -torch.inf if self.how.of == "logits" else 0.0
        probs_KHW = probabilities(scores_KHW, self.how) if scores or self.target.crf != NONE else None
        if self.target.crf != NONE:
            assert probs_KHW is not None
            labels_HW = crf_labels(image_HW3, occurring(probs_KHW), PRESETS[self.target.crf])
            labels_HW = _enlarged(labels_HW, size)
        else:
            labels_HW = decided_at(scores_KHW, size)
        own = {"probabilities": probs_KHW.half().cpu().numpy()} if scores and probs_KHW is not None else {}
        return Predicted(labels_HW, own)


def decided_at(scores_Khw: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The label of the highest score at another size (H,W), bilinear; strip by strip, so that the scores of a large
    photo are never held at its size."""
    h, w = scores_Khw.shape[1:]
    if (h, w) == size:
        return scores_Khw.argmax(0).to(torch.uint8).cpu().numpy()
    # Classes that are ruled out have minus infinity, which interpolates to no number.
    finite_1Khw = scores_Khw.clamp(min=torch.finfo(torch.float32).min / 4)[None]
    x = (torch.arange(size[1], device=scores_Khw.device) + 0.5) * (2 / size[1]) - 1
    rows = []
    for top in range(0, size[0], STRIP):
        some = torch.arange(top, min(top + STRIP, size[0]), device=scores_Khw.device)
        y = (some + 0.5) * (2 / size[0]) - 1
        grid_1HW2 = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
        strip = F.grid_sample(finite_1Khw, grid_1HW2, mode="bilinear", padding_mode="border", align_corners=False)[0]
        rows.append(strip.argmax(0).to(torch.uint8).cpu())
    return torch.cat(rows).numpy()


def _enlarged(labels_hw: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels at another size, nearest."""
    if labels_hw.shape == size:
        return labels_hw
    h, w = labels_hw.shape
    enlarged: NDArray[np.uint8] = labels_hw[np.arange(size[0]) * h // size[0]][:, np.arange(size[1]) * w // size[1]]
    return enlarged
