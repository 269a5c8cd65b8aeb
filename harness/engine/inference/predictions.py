"""From images to score maps and label maps: how the network sees an image that is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.api.inference import Inference
from harness.api.method import Method, Prediction
from harness.engine.checkpoint import Artifact
from harness.engine.inference.passes import Passes, resample
from harness.engine.scorer import Scorer

CHUNK = 16
"""Images per forward pass of scoring."""
MAPS = ("cam", "pseudo")
"""Targets that are score maps, cut by a threshold."""


def batches(ids: Sequence[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Consecutive chunks of ids."""
    for at in range(0, len(ids), size):
        yield list(ids[at : at + size])


@dataclass(frozen=True)
class ScoreMaps:
    """Scores of the classes that an image's tags name, at network resolution."""

    classes: NDArray[np.int16]
    """Foreground class indices (0-based), n of them."""
    scores: Mapping[str, NDArray[np.floating]]
    """Per target (cam, pseudo): (n,h,w) in [0,1]; half precision where they are a run's own."""

    @staticmethod
    def of(prediction: Prediction, tags_BC: Tensor) -> list[ScoreMaps]:
        """The maps of a batch, absent classes left out."""
        found = {"cam": prediction.cam_BCHW, "pseudo": prediction.pseudo_BCHW}
        out = []
        for b in range(len(tags_BC)):
            present = torch.nonzero(tags_BC[b] > 0).flatten()
            # Half precision everywhere, so that maps read from files score exactly like fresh ones.
            scores = {name: maps[b, present].half().cpu().numpy() for name, maps in found.items() if maps is not None}
            out.append(ScoreMaps(present.cpu().numpy().astype(np.int16), scores))
        return out

    @staticmethod
    def read(folder: Artifact, image_id: str) -> ScoreMaps:
        """Maps that the stage `write-cams` left."""
        with np.load(folder.path / f"{image_id.replace('/', '~')}.npz", allow_pickle=False) as f:
            return ScoreMaps(f["classes"], {k: f[k] for k in f.files if k != "classes"})

    def best(self, target: str, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Highest score (H,W) and its foreground class index at an image's own size; zeros where none is present."""
        if not len(self.classes):
            return np.zeros(size, np.float32), np.zeros(size, np.int64)
        maps = torch.from_numpy(self.scores[target]).float()[None]
        score, index = F.interpolate(maps, size, mode="bilinear", align_corners=False)[0].max(0)
        return score.numpy(), self.classes.astype(np.int64)[index.numpy()]


def predict(
    scorer: Scorer,
    method: Method,
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    wanted: frozenset[str],
    weights: str,
) -> tuple[list[ScoreMaps], list[NDArray[np.uint8]]]:
    """Score maps and segmentation label maps of a batch of images by the usual inference protocol.

    What is not wanted stays empty. Raises ValueError for a target that the method does not make.
    """
    maps, fused = forward(scorer, method, ids, sizes, wanted, weights, scorer.inference)
    labels = {n: scores_KHW.argmax(0).to(torch.uint8).cpu().numpy() for n, scores_KHW in fused}
    return maps, [labels[n] for n in sorted(labels)]


def forward(
    scorer: Scorer,
    method: Method,
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    wanted: frozenset[str],
    weights: str,
    how: Inference,
) -> tuple[list[ScoreMaps], Iterator[tuple[int, Tensor]]]:
    """Score maps of a batch of images, and of each image its place in `ids` with the segmenter's scores (K,H,W).

    The segmenter sees the images as `how` says; score maps are made at the training size in any case. The scores
    come image by image, so that few are held at once. Raises ValueError for a target that the method does not make.
    """
    passes = Passes(scorer.dataset, method, scorer.crop, scorer.session.device, weights, scorer.bf16)
    first = wanted if how.single else wanted - {"segmentation"}
    maps: list[ScoreMaps] = []
    logits: Tensor | None = None
    if first:
        images = passes.squares(ids, scorer.crop)
        tags = torch.from_numpy(np.stack([scorer.dataset.tags(i) for i in ids])).to(scorer.session.device)
        prediction = passes.ask(images, tags, first)
        maps = ScoreMaps.of(prediction, tags) if first & set(MAPS) else []
        logits = prediction.segmentation_BKhw
    if "segmentation" not in wanted:
        return maps, iter(())
    if logits is not None:
        return maps, (
            (n, resample(one, (1.0, 1.0), size)) for n, (one, size) in enumerate(zip(logits, sizes, strict=True))
        )
    return maps, passes.fused(ids, sizes, how)
