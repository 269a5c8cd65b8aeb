"""Images to counts: score maps at every threshold, label maps, and CRFs in processes of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.dataset import Dataset
from harness.api.images import BACKGROUND, Maps
from harness.api.inference import SINGLE, Inference
from harness.datasets.io.image_files import decided, read
from harness.engine.inference.passes import probabilities
from harness.engine.inference.predictions import MAPS, batches, forward
from harness.engine.inference.sources import Source
from harness.engine.parallel import gather_objects
from harness.engine.scorer import Scorer
from harness.scoring.confusion import image_counts
from harness.scoring.crf import NONE, OCCURS, PRESETS, CrfPool, Soft, crf_pool
from harness.scoring.curves import ImageCurve, threshold_grid

Scored = ImageCurve | NDArray[np.int64]
"""What one image leaves behind: counts at every threshold, or (K,3) counts where there is none."""


@dataclass(frozen=True)
class Target:
    """What is scored: cam, pseudo or segmentation, with student or teacher weights, after a CRF or without."""

    name: str
    weights: str
    crf: str = NONE


def score_images(
    sources: Mapping[str, Source],
    ids: Sequence[str],
    targets: Sequence[Target],
    split: str,
    how: Inference = SINGLE,
) -> dict[Target, dict[str, Scored]]:
    """Per target and image its counts at all thresholds; images are shared out over the session's workers.

    `sources` says by the name of a target what it is scored from; `how` is the segmenter's inference protocol. CRFs are
    spread over the scorer's threads.
    """
    scorer = sources[targets[0].name].scorer
    session = scorer.session
    mine = list(ids[session.rank :: session.world_size])
    local: dict[Target, dict[str, Scored]] = {t: {} for t in targets}
    any_crf = any(t.crf != NONE for t in targets)
    done = 0
    with crf_pool(scorer.threads if any_crf else 1) as pool:
        later = _Later(pool, local, scorer.dataset, limit=4 * scorer.threads)
        for chunk in batches(mine):
            scorer.report_progress(f"score {split}", done, len(mine))
            done += len(chunk)
            truths = [scorer.dataset.mask(i) for i in chunk]
            for weights in dict.fromkeys(t.weights for t in targets):
                some = [t for t in targets if t.weights == weights]
                _score_chunk(sources, chunk, truths, some, how, local, later)
        later.finish()
        scorer.report_progress(f"score {split}", done, len(mine))
    merged: dict[Target, dict[str, Scored]] = {t: {} for t in targets}
    for part in gather_objects(local, session):
        for target, scored in part.items():
            merged[target].update(scored)
    return merged


@dataclass
class _Later:
    """Label maps that CRF processes still work on, and where their counts go; as many at once as `limit`."""

    pool: CrfPool
    results: dict[Target, dict[str, Scored]]
    dataset: Dataset
    limit: int
    waiting: deque[tuple[Target, str, NDArray[np.uint8], Future[NDArray[np.uint8]]]] = field(default_factory=deque)

    def add(self, target: Target, image_id: str, truth: NDArray[np.uint8], soft: Soft) -> None:
        """Start one image."""
        image = self.dataset.image(image_id)
        self.waiting.append((target, image_id, truth, self.pool.submit(image, soft, PRESETS[target.crf])))
        self.finish(self.limit)

    def finish(self, left: int = 0) -> None:
        """Count the oldest until at most `left` wait. Raises what the CRF raised."""
        while len(self.waiting) > left:
            target, image_id, truth, labels = self.waiting.popleft()
            self.results[target][image_id] = image_counts(labels.result(), truth, self.dataset.num_labels)


def _score_chunk(
    sources: Mapping[str, Source],
    ids: Sequence[str],
    truths: Sequence[NDArray[np.uint8]],
    targets: Sequence[Target],
    how: Inference,
    results: dict[Target, dict[str, Scored]],
    later: _Later,
) -> None:
    """Score a batch of images with one set of weights."""
    weights = targets[0].weights
    names = list(dict.fromkeys(t.name for t in targets))
    asked: dict[int, tuple[Source, list[str]]] = {}
    written: dict[Path, list[str]] = {}
    for name in names:
        source = sources[name]
        if source.files is not None and weights == "student":
            written.setdefault(source.files, []).append(name)
        else:
            asked.setdefault(id(source.network), (source, []))[1].append(name)
    for folder, some in written.items():
        for i, truth in zip(ids, truths, strict=True):
            found = read(folder, i)
            for name in some:
                results[Target(name, weights)][i] = _of_file(sources[name].scorer, found, name, truth)
    for source, some in asked.values():
        _of_network(source, some, ids, truths, targets, how, results, later)


def _of_file(scorer: Scorer, found: Any, name: str, truth: NDArray[np.uint8]) -> Scored:
    """Counts of what a stage wrote of an image: score maps or a label map."""
    if isinstance(found, Maps):
        return map_curve(scorer.dataset, found, name, truth, threshold_grid(scorer.cam_threshold))
    return image_counts(found, truth, scorer.dataset.num_labels)


def _of_network(
    source: Source,
    names: Sequence[str],
    ids: Sequence[str],
    truths: Sequence[NDArray[np.uint8]],
    targets: Sequence[Target],
    how: Inference,
    results: dict[Target, dict[str, Scored]],
    later: _Later,
) -> None:
    """Score what a network predicts of a batch of images."""
    scorer, weights = source.scorer, targets[0].weights
    dataset = scorer.dataset
    if source.network is None:
        raise ValueError(f"no network predicts {', '.join(names)} with {weights} weights")
    sizes = [(int(t.shape[0]), int(t.shape[1])) for t in truths]
    maps, fused = forward(scorer, source.network, ids, sizes, frozenset(names), weights, how)
    grid = threshold_grid(scorer.cam_threshold)
    for name in (n for n in names if n in MAPS):
        for i, truth, found in zip(ids, truths, maps, strict=True):
            results[Target(name, weights)][i] = map_curve(dataset, found, name, truth, grid)
    crfs = [t for t in targets if t.name not in MAPS and t.crf != NONE]
    plain = Target("segmentation", weights)
    for n, scores_KHW in fused:
        if plain in results:
            labels = scores_KHW.argmax(0).to(torch.uint8).cpu().numpy()
            results[plain][ids[n]] = image_counts(labels, truths[n], dataset.num_labels)
        if crfs:
            soft = occurring(probabilities(scores_KHW, how))
            for target in crfs:
                later.add(target, ids[n], truths[n], soft)


def occurring(probs_KHW: Tensor) -> Soft:
    """Probabilities of the labels that occur; only these leave the device."""
    peak_K = probs_KHW.amax((1, 2))
    kept = torch.nonzero((peak_K > OCCURS) | (peak_K == peak_K.max())).flatten()
    return Soft(kept.to(torch.uint8).cpu().numpy(), probs_KHW[kept].float().cpu().numpy())


def map_curve(dataset: Dataset, maps: Maps, target: str, truth: NDArray[np.uint8], grid: NDArray[np.float64]) -> Scored:
    """Counts of an image's score maps at every threshold of a grid; where there is nothing to cut, of the best class:
    in datasets without background, and of maps that have one of their own."""
    score, cls = decided(maps, target, (int(truth.shape[0]), int(truth.shape[1])))
    if not dataset.has_background:
        return image_counts(cls.astype(np.uint8), truth, dataset.num_labels)
    if BACKGROUND in maps.classes:
        return image_counts(np.where(score > 0, cls + 1, 0).astype(np.uint8), truth, dataset.num_labels)
    return ImageCurve.of(score, cls + 1, truth, grid, dataset.num_labels)
