"""From images to score maps and label maps: how the network sees an image that is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.images import BACKGROUND, Maps
from harness.api.inference import Inference
from harness.api.method import Method, Prediction
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


def score_maps(prediction: Prediction, tags_BC: Tensor) -> list[Maps]:
    """The maps of a batch at network resolution, absent classes left out.

    Half precision everywhere, so that maps read from files score exactly like fresh ones.
    """
    found = {"cam": prediction.cam_BCHW, "pseudo": prediction.pseudo_BCHW}
    own = prediction.background_BHW
    out = []
    for b in range(len(tags_BC)):
        present = torch.nonzero(tags_BC[b] > 0).flatten()
        scales = {}
        for name, maps in found.items():
            if maps is not None:
                of = maps[b, present] if own is None else torch.cat([maps[b, present], own[b][None].to(maps)])
                scales[name] = [of.half().cpu().numpy()]
        classes = present.cpu().numpy().astype(np.int16)
        out.append(Maps(classes if own is None else np.append(classes, np.int16(BACKGROUND)), scales, fused=False))
    return out


def predict(
    scorer: Scorer,
    method: Method,
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    wanted: frozenset[str],
    weights: str,
) -> tuple[list[Maps], list[NDArray[np.uint8]]]:
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
) -> tuple[list[Maps], Iterator[tuple[int, Tensor]]]:
    """Score maps of a batch of images, and of each image its place in `ids` with the segmenter's scores (K,H,W).

    The segmenter sees the images as `how` says; score maps are made at the training size in any case. The scores
    come image by image, so that few are held at once. Raises ValueError for a target that the method does not make.
    """
    passes = Passes(scorer.dataset, method, scorer.crop, scorer.session.device, weights, scorer.bf16)
    first = wanted if how.single else wanted - {"segmentation"}
    maps: list[Maps] = []
    logits: Tensor | None = None
    if first:
        images = passes.squares(ids, scorer.crop)
        tags = torch.from_numpy(np.stack([scorer.dataset.tags(i) for i in ids])).to(scorer.session.device)
        prediction = passes.ask(images, tags, first)
        maps = score_maps(prediction, tags) if first & set(MAPS) else []
        logits = prediction.segmentation_BKhw
    if "segmentation" not in wanted:
        return maps, iter(())
    if logits is not None:
        return maps, (
            (n, resample(one, (1.0, 1.0), size)) for n, (one, size) in enumerate(zip(logits, sizes, strict=True))
        )
    return maps, passes.fused(ids, sizes, how)
