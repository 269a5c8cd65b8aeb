"""Scoring of a run: one pass over each split yields counts for every target, and for every threshold at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from harness.config import digest_of
from harness.datasets.base import Dataset
from harness.engine.context import Artifact, Context
from harness.engine.parallel import gather_objects
from harness.engine.predictions import MAPS, ScoreMaps, batches, predict
from harness.method import Method
from harness.scoring.confusion import image_counts
from harness.scoring.curves import Curve, ImageCurve, threshold_grid, threshold_index
from harness.scoring.metrics import counts_frame, curves_frame, miou

Scored = ImageCurve | NDArray[np.int64]
"""What one image leaves behind: counts at every threshold, or (K,3) counts where there is none."""


@dataclass
class Tables:
    """Rows for the store's tables of the same names."""

    evals: list[dict[str, Any]] = field(default_factory=list)
    counts: list[pl.DataFrame] = field(default_factory=list)
    curves: list[pl.DataFrame] = field(default_factory=list)
    objective: float = float("nan")


@dataclass(frozen=True)
class Target:
    """What is scored: cam, pseudo or segmentation, with student or teacher weights."""

    name: str
    weights: str


def score_run(context: Context, method: Method, outputs: Mapping[str, Artifact]) -> Tables:
    """Evals of every target on the tuning and the reported split.

    Thresholds: `fixed` is the preset's, `held-out` was best on the tuning split, `oracle` on the reported one.
    """
    targets = _targets(context, method)
    tables = Tables()
    best_on_tune: dict[Target, float] = {}
    for role, name, ids in _splits(context):
        began = time.perf_counter()
        results = score_images(context, method, ids, targets, outputs, name)
        seconds = time.perf_counter() - began
        for target in targets:
            _add(tables, context, target, name, role, [results[target][i] for i in ids], ids, best_on_tune, seconds)
    tables.objective = objective_from_evals(
        pl.DataFrame(tables.evals),
        pl.concat(tables.counts),
        context.run.chosen.spec.targets[-1],
        context.splits.tune_name,
        context.splits.report_name,
        context.machine.protocol,
    )
    return tables


def score_images(
    context: Context,
    method: Method,
    ids: Sequence[str],
    targets: Sequence[Target],
    outputs: Mapping[str, Artifact],
    split: str,
) -> dict[Target, dict[str, Scored]]:
    """Per target and image its counts at all thresholds; images are shared out over the run's workers."""
    session, dataset = context.session, context.dataset
    mine = list(ids[session.rank :: session.world_size])
    local: dict[Target, dict[str, Scored]] = {t: {} for t in targets}
    grid = threshold_grid(context.run.cam_threshold)
    device = torch.device(session.device)
    done = 0
    for chunk in batches(mine):
        context.beat(f"score {split}", done, len(mine))
        done += len(chunk)
        truths = [dataset.mask(i) for i in chunk]
        sizes = [(int(t.shape[0]), int(t.shape[1])) for t in truths]
        for weights in dict.fromkeys(t.weights for t in targets):
            names = frozenset(t.name for t in targets if t.weights == weights)
            from_files = "cams" in outputs and weights == "student"
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=context.run.precision == "bf16"):
                maps, labels = predict(
                    context, method, chunk, sizes, names - set(MAPS) if from_files else names, weights
                )
            if from_files:
                maps = [ScoreMaps.read(outputs["cams"], i) for i in chunk]
            for name in names & set(MAPS):
                for i, truth, found in zip(chunk, truths, maps, strict=True):
                    local[Target(name, weights)][i] = _curve(dataset, found, name, truth, grid)
            if "segmentation" in names:
                for i, truth, pred in zip(chunk, truths, labels, strict=True):
                    local[Target("segmentation", weights)][i] = image_counts(pred, truth, dataset.num_labels)
    merged: dict[Target, dict[str, Scored]] = {t: {} for t in targets}
    for part in gather_objects(local, session):
        for target, scored in part.items():
            merged[target].update(scored)
    return merged


def objective_now(context: Context, method: Method) -> float:
    """The objective with the weights as they are: the last target on the tuning split, student, single scale."""
    target = Target(context.run.chosen.spec.targets[-1], "student")
    role, name, ids = _splits(context)[0]
    method.eval()
    tables = Tables()
    results = score_images(context, method, ids, [target], {}, name)[target]
    _add(tables, context, target, name, role, [results[i] for i in ids], ids, {}, 0.0)
    return objective_from_evals(
        pl.DataFrame(tables.evals),
        pl.concat(tables.counts),
        target.name,
        context.splits.tune_name,
        context.splits.report_name,
        context.machine.protocol,
    )


def objective_from_evals(
    evals: pl.DataFrame, counts: pl.DataFrame, target: str, tune: str, report: str, protocol: str
) -> float:
    """mIoU of a run's last target: on the tuning split, or on the reported one where the protocol has no other.

    Maps are scored at the threshold that the protocol chooses there, or at the preset's.
    """
    rows = evals.filter((pl.col("target") == target) & (pl.col("weights") == "student"))
    on_tune = rows.filter(pl.col("split") == tune)
    split = on_tune if on_tune.height and protocol != "oracle" else rows.filter(pl.col("split") == report)
    for rule in (protocol, "none", "fixed"):
        chosen = split.filter(pl.col("threshold_rule") == rule)
        if chosen.height:
            return miou(counts.filter(pl.col("eval") == chosen["eval"][0]))[0]
    return float("nan")


def _splits(context: Context) -> list[tuple[str, str, tuple[str, ...]]]:
    """(role, name, ids) of the splits to score: the tuning split where it is another than the reported one."""
    splits = context.splits
    found = [("report", splits.report_name, splits.report)]
    if splits.tune and splits.tune_name != splits.report_name:
        found.insert(0, ("tune", splits.tune_name, splits.tune))
    return found


def _targets(context: Context, method: Method) -> list[Target]:
    weights = ["student"] + (["teacher"] if method.teacher is not None else [])
    names = context.run.chosen.spec.targets
    # The teacher's pseudo masks feed no loss: only what papers print of it is scored.
    return [Target(n, w) for w in weights for n in names if not (w == "teacher" and n == "pseudo")]


def _curve(
    dataset: Dataset, maps: ScoreMaps, target: str, truth: NDArray[np.uint8], grid: NDArray[np.float64]
) -> Scored:
    score, cls = maps.best(target, (int(truth.shape[0]), int(truth.shape[1])))
    if not dataset.has_background:
        return image_counts(cls.astype(np.uint8), truth, dataset.num_labels)
    return ImageCurve.of(score, cls + 1, truth, grid, dataset.num_labels)


def _add(
    tables: Tables,
    context: Context,
    target: Target,
    split: str,
    role: str,
    results: Sequence[Scored],
    ids: Sequence[str],
    best_on_tune: dict[Target, float],
    seconds: float,
) -> None:
    """Append the evals of one target on one split, one per threshold rule, and the curve they come from."""
    curves = [r for r in results if isinstance(r, ImageCurve)]
    if len(curves) < len(results):
        counts = [r for r in results if not isinstance(r, ImageCurve)]
        _eval_rows(tables, context, target, split, "none", None, np.stack(counts), ids, seconds)
        return
    curve = Curve.sum(curves)
    best = float(curve.thresholds_T[curve.best()])
    rules = {"fixed": context.run.cam_threshold}
    if role == "tune":
        best_on_tune[target] = rules["held-out"] = best
    else:
        if target in best_on_tune:
            rules["held-out"] = best_on_tune[target]
        rules["oracle"] = best
    for rule, threshold in rules.items():
        j = threshold_index(curve.thresholds_T, threshold)
        counts_IK3 = np.stack([c.counts(j) for c in curves])
        eval_id = _eval_rows(tables, context, target, split, rule, threshold, counts_IK3, ids, seconds)
    # The curve belongs to the last rule: the one whose threshold was read off it (held-out or oracle).
    tables.curves.append(curves_frame(eval_id, curve))


def _eval_rows(
    tables: Tables,
    context: Context,
    target: Target,
    split: str,
    rule: str,
    threshold: float | None,
    counts_IK3: NDArray[np.int64],
    ids: Sequence[str],
    seconds: float,
) -> str:
    run = context.run
    maps = target.name in MAPS
    scales = run.knobs.get("cam_scales", [1.0]) if maps else run.scales
    row: dict[str, Any] = {
        "key": context.key,
        "target": target.name,
        "weights": target.weights,
        "step": run.total,
        "split": split,
        "tags": "truth" if maps else "none",
        "scales": ",".join(f"{s:g}" for s in scales),
        "flip": True if maps else run.flip,
        "fusion": "sum" if maps else run.fusion,
        "crf": "none",
        "threshold_rule": rule,
        "threshold": threshold,
    }
    eval_id = digest_of(row)
    tables.evals.append(
        {
            "eval": eval_id,
            **row,
            "protocol": rule if rule != "none" else context.machine.protocol,
            "images": len(ids),
            "seconds": seconds,
        }
    )
    tables.counts.append(counts_frame(eval_id, list(ids), counts_IK3))
    return eval_id
