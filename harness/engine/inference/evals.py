"""Rows of the tables `evals`, `counts` and `curves`: one eval is one target scored in one way on one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.api.inference import Inference
from harness.engine.inference.counting import Scored, Target
from harness.engine.inference.predictions import MAPS
from harness.files import digest_of
from harness.plan.config import RunConfig
from harness.scoring.curves import Curve, ImageCurve, threshold_index
from harness.scoring.frames import counts_frame, curves_frame

NO_RULE = "none"
"""Threshold rule of what has no threshold."""


@dataclass
class Tables:
    """Rows for the store's tables of the same names."""

    evals: list[dict[str, Any]] = field(default_factory=list)
    counts: list[pl.DataFrame] = field(default_factory=list)
    curves: list[pl.DataFrame] = field(default_factory=list)
    objective: float = float("nan")


def eval_columns(key: str, run: RunConfig, target: Target, split: str, rule: str, how: Inference) -> dict[str, Any]:
    """What tells an eval from all others but its threshold: columns of `evals`. `how` counts for segmenters only."""
    maps = target.name in MAPS
    cam_scales = ",".join(f"{s:g}" for s in run.trained_knobs.get("cam_scales", [1.0]))
    return {
        "key": key,
        "target": target.name,
        "weights": target.weights,
        "step": run.total,
        "split": split,
        "tags": "truth" if maps else "none",
        "scales": cam_scales if maps else how.scales_text,
        "flip": True if maps else how.flip != "none",
        "fusion": "sum" if maps else how.fusion_text,
        "crf": target.crf,
        "threshold_rule": rule,
    }


def thresholds_of(
    results: Sequence[Scored], rules: Mapping[str, float | None]
) -> tuple[Curve | None, dict[str, float]]:
    """The curve of images that have thresholds, and the threshold of each rule; a rule without one takes the best.

    (None, {}) for images without thresholds.
    """
    curves = [r for r in results if isinstance(r, ImageCurve)]
    if len(curves) < len(results):
        return None, {}
    curve = Curve.sum(curves)
    best = float(curve.thresholds_T[curve.best()])
    return curve, {rule: best if threshold is None else threshold for rule, threshold in rules.items()}


def counts_at(results: Sequence[Scored], threshold: float | None) -> NDArray[np.int64]:
    """Counts (I,K,3) of images at a threshold, or of those that have none."""
    return np.stack(
        [
            r.counts(threshold_index(r.thresholds_T, threshold))
            if isinstance(r, ImageCurve) and threshold is not None
            else np.asarray(r)
            for r in results
        ]
    )


def add_eval(
    tables: Tables,
    columns: Mapping[str, Any],
    threshold: float | None,
    counts_IK3: NDArray[np.int64],
    ids: Sequence[str],
    *,
    protocol: str,
    seconds: float,
    curve: Curve | None = None,
) -> str:
    """Append one eval with its counts, and the curve that its threshold was read off; returns its id."""
    row = {**columns, "threshold": threshold}
    eval_id = digest_of(row)
    rule = str(columns["threshold_rule"])
    tables.evals.append(
        {
            "eval": eval_id,
            **row,
            "protocol": rule if rule != NO_RULE else protocol,
            "images": len(ids),
            "seconds": seconds,
        }
    )
    tables.counts.append(counts_frame(eval_id, list(ids), counts_IK3))
    if curve is not None:
        tables.curves.append(curves_frame(eval_id, curve))
    return eval_id
