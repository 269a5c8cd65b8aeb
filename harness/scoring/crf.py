"""A12: dense CRF of a segmenter's probabilities with the presets of the papers, restricted to labels that occur.

Needs the extra `crf` (pydensecrf). Module without torch: the worker processes that import it start in a moment.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import Problem, nearest

OCCURS = 0.1
"""A label takes part where its probability is above this at some pixel: performance.md section 3 measured 0.006 to
0.035 % of pixels that differ from the CRF of all 21 labels, at a third of the time."""
CLIP = 1e-5
"""Least probability of the unary, as pydensecrf's `unary_from_softmax` has it."""


@dataclass(frozen=True)
class CrfPreset:
    """Pairwise terms in pixels (`*_xy_std`), grey levels (`bi_rgb_std`) and weights, and what the unary is made of."""

    pos_xy_std: float
    pos_w: float
    bi_xy_std: float
    bi_rgb_std: float
    bi_w: float
    gt_prob: float | None = None
    """Certainty of hard labels that the unary is made of; None takes the probabilities themselves."""
    iterations: int = 10

    def relabel(self, image_HW3: NDArray[np.uint8], index_HW: NDArray[np.integer], labels: int) -> NDArray[np.int64]:
        """Label indices (H,W) after the CRF over an image, taken before it as right with certainty `gt_prob`.

        All `labels` share what is left of the certainty, also those that occur nowhere (A12). Raises ValueError for a
        preset without it, ImportError without the extra.
        """
        if self.gt_prob is None:
            raise ValueError(f"{self} has no certainty of hard labels (gt_prob)")
        if labels < 2:
            return index_HW.astype(np.int64)
        return dense_crf(image_HW3, hard_unary(index_HW, labels, self.gt_prob), self).argmax(0)


PRESETS: Mapping[str, CrfPreset] = {
    "toco": CrfPreset(1, 1, 121, 5, 4),
    "toco-cam": CrfPreset(3, 3, 36, 3, 4),
    "afa": CrfPreset(3, 3, 64, 5, 4),
    "irn": CrfPreset(3, 3, 50, 5, 10, gt_prob=0.7),
    "fsae": CrfPreset(3, 3, 80, 13, 10),
    "deeplab": CrfPreset(1, 3, 67, 3, 4),
}
"""operators.md A12."""
NONE = "none"


def crf_problems(name: str) -> list[Problem]:
    """What is wrong with the word `crf`: an unknown preset, or the extra is not installed."""
    if name == NONE:
        return []
    if name not in PRESETS:
        return [Problem("crf", f"{name!r} is unknown", nearest(name, (NONE, *PRESETS)))]
    if importlib.util.find_spec("pydensecrf") is None:
        fix = "uv sync --extra crf, or pip install pydensecrf2==1.1; it is compiled, so a C++ compiler must be there"
        return [Problem("crf", f"{name} needs pydensecrf, which is not installed", fix)]
    return []


@dataclass(frozen=True)
class Soft:
    """Probabilities of the labels that occur in an image, ascending by label."""

    labels_n: NDArray[np.uint8]
    probs_nHW: NDArray[np.float32]
    """In [0,1]; they need not sum to 1, because the CRF normalises at each pixel."""

    @classmethod
    def of(cls, probs_KHW: NDArray[np.floating], above: float = OCCURS) -> Soft:
        """The labels whose probability is somewhere above `above`, and the most probable one of all in any case."""
        peak_K = probs_KHW.max((1, 2))
        kept = np.flatnonzero((peak_K > above) | (peak_K == peak_K.max()))
        return cls(kept.astype(np.uint8), np.ascontiguousarray(probs_KHW[kept], np.float32))


def soft_unary(probs_KHW: NDArray[np.floating]) -> NDArray[np.float32]:
    """-log of probabilities (K,H*W), nats, clipped at `CLIP`."""
    return np.ascontiguousarray(-np.log(np.clip(probs_KHW, CLIP, 1.0)).reshape(len(probs_KHW), -1), np.float32)


def hard_unary(index_HW: NDArray[np.integer], labels: int, gt_prob: float) -> NDArray[np.float32]:
    """Unary (K,H*W), nats, of label indices 0..K-1 that are right with probability `gt_prob`; K is 2 or more."""
    index = index_HW.reshape(-1)
    unary = np.full((labels, index.size), -np.log((1 - gt_prob) / (labels - 1)), np.float32)
    unary[index, np.arange(index.size)] = -np.log(gt_prob)
    return unary


def dense_crf(image_HW3: NDArray[np.uint8], unary_KN: NDArray[np.float32], preset: CrfPreset) -> NDArray[np.float32]:
    """Marginals (K,H,W) after mean-field iterations over an RGB image. Raises ImportError without the extra."""
    from pydensecrf.densecrf import DenseCRF2D

    h, w = image_HW3.shape[:2]
    crf = DenseCRF2D(w, h, len(unary_KN))
    crf.setUnaryEnergy(np.require(unary_KN, np.float32, ["C", "W"]))
    crf.addPairwiseGaussian(sxy=preset.pos_xy_std, compat=preset.pos_w)
    # Datasets hand out read-only arrays, which pydensecrf's buffers do not take.
    image = np.require(image_HW3, np.uint8, ["C", "W"])
    crf.addPairwiseBilateral(sxy=preset.bi_xy_std, srgb=preset.bi_rgb_std, rgbim=image, compat=preset.bi_w)
    return np.array(crf.inference(preset.iterations), np.float32).reshape(-1, h, w)


def crf_labels(image_HW3: NDArray[np.uint8], soft: Soft, preset: CrfPreset) -> NDArray[np.uint8]:
    """Label map (H,W) after the CRF; an image in which one label occurs is that label. Raises as `dense_crf`."""
    labels, probs = soft.labels_n, soft.probs_nHW
    if preset.gt_prob is not None and len(labels) > 1:
        used, index = np.unique(probs.argmax(0), return_inverse=True)
        labels = labels[used]
        unary = hard_unary(index, len(labels), preset.gt_prob) if len(labels) > 1 else None
    else:
        unary = soft_unary(probs) if len(labels) > 1 else None
    if unary is None:
        return np.full(probs.shape[1:], labels[0], np.uint8)
    return labels[dense_crf(image_HW3, unary, preset).argmax(0)]


class CrfPool:
    """Applies the CRF to images one after another, in this process or spread over several."""

    def __init__(self, executor: ProcessPoolExecutor | None):
        self._executor = executor

    def submit(self, image_HW3: NDArray[np.uint8], soft: Soft, preset: CrfPreset) -> Future[NDArray[np.uint8]]:
        """The label map of an image, ready at once where there is one process only."""
        if self._executor is not None:
            return self._executor.submit(crf_labels, image_HW3, soft, preset)
        done: Future[NDArray[np.uint8]] = Future()
        done.set_result(crf_labels(image_HW3, soft, preset))
        return done


@contextmanager
def crf_pool(processes: int) -> Iterator[CrfPool]:
    """A pool of that many processes, or this one; pydensecrf holds the interpreter's lock, so threads gain nothing.

    What is still queued is dropped when the caller fails.
    """
    if processes <= 1:
        yield CrfPool(None)
        return
    # A forked child would inherit locks of torch's and polars' threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield CrfPool(executor)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C ends the parent, which ends its pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
