"""Scoring of a run: one pass over each split yields counts for every target, and for every threshold at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from harness.api.inference import SINGLE, Inference
from harness.api.recipe import PerImage
from harness.datasets.splits import SplitPlan
from harness.engine.context import Context
from harness.engine.inference.counting import Scored, Target, score_images
from harness.engine.inference.evals import NO_RULE, Tables, add_eval, counts_at, eval_columns, thresholds_of
from harness.engine.inference.predictions import MAPS
from harness.engine.inference.sources import Source, source_of
from harness.scoring.crf import NONE
from harness.scoring.metrics import miou
from harness.store import MissingRows, Store
from harness.store.lost import lost_tables


def score_run(context: Context) -> Tables:
    """Evals of every target on the tuning and the reported split.

    Thresholds: `fixed` is the preset's, `held-out` was best on the tuning split, `oracle` on the reported one.
    Segmenters are reported by the run's inference protocol, with its CRF beside without; the tuning split, whose
    scores only choose, is seen at a single scale and without CRF. Maps and masks that stages wrote of training images
    are scored there as well, as papers do; nothing is chosen by these scores.
    """
    context.check_data()
    tables = Tables()
    best_on_tune: dict[Target, float] = {}
    sources = {target: source_of(context, target) for target in context.recipe.targets}
    for role, name, ids in (*_splits(context), *_written_train(context)):
        some = _written_of_train(context) if role == "train" else list(sources)
        targets = [Target(n, w) for w in ("student", "teacher") for n in some if w in sources[n].weights(n)]
        how = context.run.inference if role == "report" else SINGLE
        if role == "report" and context.run.crf != NONE:
            targets += [Target(t.name, t.weights, context.run.crf) for t in targets if t.name not in MAPS]
        began = time.perf_counter()
        results = score_images(sources, ids, targets, name, how)
        seconds = time.perf_counter() - began
        for target in targets:
            found = [results[target][i] for i in ids]
            _add(tables, context, target, name, role, found, ids, best_on_tune, seconds, how)
    context.check_data()
    tables.objective = objective_from_evals(
        pl.DataFrame(tables.evals),
        pl.concat(tables.counts),
        context.recipe.targets[-1],
        context.splits.tune_name,
        context.splits.report_name,
        context.machine.protocol,
    )
    return tables


def objective_now(context: Context, target: str, source: Source) -> float:
    """The objective of a run in progress: a target as it is now, on the tuning split, student, single scale."""
    context.check_data()
    scored = Target(target, "student")
    role, name, ids = _splits(context)[0]
    if source.network is not None:
        source.network.eval()
    tables = Tables()
    results = score_images({target: source}, ids, [scored], name)[scored]
    _add(tables, context, scored, name, role, [results[i] for i in ids], ids, {}, 0.0, SINGLE)
    return objective_from_evals(
        pl.DataFrame(tables.evals),
        pl.concat(tables.counts),
        target,
        context.splits.tune_name,
        context.splits.report_name,
        context.machine.protocol,
    )


def objective_from_evals(
    evals: pl.DataFrame, counts: pl.DataFrame, target: str, tune: str, report: str, protocol: str
) -> float:
    """mIoU of the eval that `objective_eval` names; raises MissingRows as it does."""
    return miou(counts.filter(pl.col("eval") == objective_eval(evals, target, tune, report, protocol)))[0]


def objective_eval(evals: pl.DataFrame, target: str, tune: str, report: str, protocol: str) -> str:
    """Id of the eval that a study maximises: of a run's last target, on the tuning split where there is one.

    Maps are scored at the threshold that the protocol chooses there, or at the preset's. No CRF. Raises MissingRows
    where the run was not scored so: under another protocol it may have seen another split, whose score must not
    stand in for this one.
    """
    split = report if protocol == "oracle" or tune == "none" else tune
    rows = evals.filter(
        pl.col("target") == target, pl.col("weights") == "student", pl.col("crf") == NONE, pl.col("split") == split
    )
    for rule in (protocol, "none", "fixed"):
        chosen = rows.filter(pl.col("threshold_rule") == rule)
        if chosen.height:
            return str(chosen["eval"][0])
    raise MissingRows(f"its {target} was not scored on {split}")


def stored_objective(store: Store, run: Mapping[str, Any], target: str, splits: SplitPlan, protocol: str) -> float:
    """The objective of a run that is done, `run` its row of `runs`, from what the store holds.

    Raises MissingRows where it was not scored so, or rows of any of its tables are gone: it has to be made again.
    """
    evals = store.read("evals", run["key"])
    wanted = objective_eval(evals, target, splits.tune_name, splits.report_name, protocol)
    counts = store.read("counts", run["key"], pl.col("eval") == wanted)
    if counts.is_empty():
        raise MissingRows(f"its counts of eval {wanted} are gone")
    if gone := lost_tables(store.root, run["key"], run["started"] or ""):
        raise MissingRows(f"damaged files took its {', '.join(gone)}")
    return miou(counts)[0]


def _splits(context: Context) -> list[tuple[str, str, tuple[str, ...]]]:
    """(role, name, ids) of the splits to score: the tuning split where it is another than the reported one."""
    splits = context.splits
    found = [("report", splits.report_name, splits.report)]
    if splits.tune and splits.tune_name != splits.report_name:
        found.insert(0, ("tune", splits.tune_name, splits.tune))
    return found


def _written_train(context: Context) -> list[tuple[str, str, tuple[str, ...]]]:
    """The training split as one to score: images with masks of which a stage wrote a target; none else."""
    if not _written_of_train(context):
        return []
    written = {*context.splits.train, *context.splits.tune}
    ids = tuple(i for i in context.dataset.quoted_train() if i in written)
    return [("train", "train", ids)] if ids else []


def _written_of_train(context: Context) -> list[str]:
    """Targets that are scored from files which a stage wrote of training images too."""
    makers = {target: context.recipe.maker(made) for target, made in context.recipe.scored.items()}
    return [t for t, stage in makers.items() if isinstance(stage, PerImage) and "train" in stage.images]


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
    how: Inference,
) -> None:
    """Append the evals of one target on one split, one per threshold rule, and the curve they come from."""
    rules: dict[str, float | None] = {"fixed": context.run.cam_threshold}
    if role == "tune" or target in best_on_tune:
        rules["held-out"] = best_on_tune.get(target)
    if role != "tune":
        rules["oracle"] = None
    curve, thresholds = thresholds_of(results, rules)
    if role == "tune" and curve is not None:
        best_on_tune[target] = thresholds["held-out"]
    # The curve belongs to the last rule: the one whose threshold was read off it (held-out or oracle).
    last = list(rules)[-1]
    for rule in list(thresholds) or [NO_RULE]:
        threshold = thresholds.get(rule)
        columns = eval_columns(context.key, context.run, target, split, rule, how)
        add_eval(
            tables,
            columns,
            threshold,
            counts_at(results, threshold),
            ids,
            protocol=context.machine.protocol,
            seconds=seconds,
            curve=curve if rule == last else None,
        )
