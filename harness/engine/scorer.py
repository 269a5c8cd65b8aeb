"""What scoring asks of whoever scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.api.dataset import Dataset
from harness.api.inference import Inference
from harness.engine.session import Session


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Whose images are seen, how large, where, and who hears of it. A run has one (`Context.scorer`); who scores
    without a run makes one."""

    dataset: Dataset
    inference: Inference
    """The usual protocol of segmenters."""
    crop: int
    """Side, pixels, that score maps are made at."""
    cam_threshold: float
    bf16: bool
    session: Session
    threads: int
    report_progress: Callable[[str, int, int], object]
    """Called with what is scored, images done, images in all."""
