"""Plans and runs in words: what a sweep will do, what it has done, what it will cost, where a run's time went."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import polars as pl

from harness.datasets.tools.judging import label_source
from harness.engine.phases import phase_table
from harness.errors import StoreError
from harness.plan.plan import Plan, PlannedStudy, PlanRow
from harness.scoring.metrics import miou_of
from harness.store import Results, latest_runs, load
from harness.store.rows import ALL_ATTEMPTS, BY_STAGE, json_of
from harness.tuning.progress import clock_text

TIER_CORE_SECONDS = {"smoke": 60.0, "lab": 600.0}
"""Upper bounds of one run by tier (design section 6), used until the store knows better."""
CHECKPOINTS_IN_FLIGHT = 4
"""Copies of the parameters in a checkpoint in progress: student, teacher, two moments."""


def plan_text(plan: Plan, *, full: bool = False) -> str:
    """The plan in words; `full` adds resolved configs, fitted values and what each knob is searched over."""
    stored = load(plan.machine.store, ["runs", "trials"])
    runs = latest_runs(stored.runs)
    rows = {row["key"]: row for row in runs.iter_rows(named=True)}
    done = {key for key, row in rows.items() if row["status"] == "done"}
    names = ", ".join(dict.fromkeys(part.dataset.name for part in plan.parts))
    lines = [f"sweep {plan.sweep}: {len(plan.studies)} studies on {names}, store {plan.machine.store}"]
    lines.extend(dict.fromkeys(line for part in plan.parts for line in _part_lines(part)))
    lengths: list[tuple[int, float, int]] = []
    unknown = 0
    for planned in plan.studies:
        study = planned.study
        payload = plan.resolve(study, {}, planned.run.seed)
        key = payload.stands_as(rows)
        each = seconds_per_run(planned, runs)
        n = min(runs_left(planned, stored.trials, done), runs_of(planned) - (key in done))
        if each is None:
            unknown += n
        else:
            lengths.append((n, each, _at_once(planned)))
        state = "to be run"
        if key in done:
            state = "trial 0 is done" + ("; pixels not recorded" if key != payload.key else "")
        time = "time unknown" if each is None else f"about {clock_text(each)} a run"
        time += f"; at most {n} of {runs_of(planned)} runs left" if n < runs_of(planned) else ""
        ablation = f", ablation {planned.ablation}" if planned.ablation else ""
        lines.append(
            f"  {study.id}: {study.trials} trials, {len(study.seeds)} seeds, {planned.run.total} iterations, "
            f"{planned.run.backbone}, {planned.run.decoder}{ablation} [{state}; {time}]"
        )
        if full:
            lines.extend("    " + line for line in _study_lines(plan, planned, key))
    if unknown:
        lines.append(f"  time: unknown for {unknown} runs, of which none like them is in the store")
    if any(n for n, _, _ in lengths):
        lines.append("  time: at most about " + time_text(lengths))
    lines.append(f"  disk: about {disk_needed(plan) / 2**20:.0f} MiB")
    return "\n".join(lines)


def _part_lines(part: PlanRow) -> list[str]:
    splits = part.splits
    return [
        f"  train {len(splits.train)} images, tuned on {splits.tune_name or 'nothing'} ({len(splits.tune)}), "
        f"reported on {splits.report_name} ({len(splits.report)}), protocol {part.words.protocol}",
        *_machine_lines(part),
        *(
            f"  labels {kind}: {label_source(part.dataset, kind)}, {part.densities[kind]}"
            for kind in part.weak_fingerprints
        ),
        *(f"  note: {note}" for note in part.notes),
        *(f"  warning: {warning}" for warning in part.warnings),
    ]


def _machine_lines(part: PlanRow) -> list[str]:
    """On a cluster: what runs ask for, and what its file says that the machines have."""
    if not part.words.elsewhere:
        return []
    asked = f"{part.words.workers} worker(s) with {part.machine.threads} CPU(s) and {part.gpus:g} GPU(s) each"
    return [f"  cluster: a run asks for {asked}; machines: {part.cluster or 'not known'}"]


def runs_left(planned: PlannedStudy, trials: pl.DataFrame, done: Collection[str]) -> int:
    """Runs that a study still makes at most: those that the store has closed for it under any sweep are left out."""
    mine = trials.filter(pl.col("study") == planned.study.id, pl.col("status") != "failed")
    closed = mine.filter(pl.col("role") == "trial")["trial"].n_unique()
    # Of a final only its run says which seed it had.
    finals = mine.filter(pl.col("role") == "final", pl.col("key").is_in(list(done)))["key"].n_unique()
    return max(0, planned.study.trials - closed) + max(0, runs_of(planned) - planned.study.trials - finals)


def time_text(lengths: Sequence[tuple[int, float, int]]) -> str:
    """How long runs take together, each entry so many, each of so many seconds, so many at a time."""
    runs = sum(n for n, _, _ in lengths)
    at_once = min(runs, max(k for n, _, k in lengths if n))
    # Runs are whole: of three with two at a time the last runs alone.
    shared = sum(n * each / k for n, each, k in lengths)
    seconds = max(shared, max(math.ceil(n / k) * each for n, each, k in lengths))
    return clock_text(seconds) + (f" with {at_once} runs at once" if at_once > 1 else "")


def _at_once(planned: PlannedStudy) -> int:
    """Runs of a study that this machine's cores hold at a time, or the cluster that its file describes."""
    study, cluster = planned.study, planned.part.cluster
    if cluster is not None:
        return max(1, cluster.holds(study.workers, study.cores_per_run, study.gpus))
    return 1 if study.gpus else max(1, int((os.cpu_count() or 1) / max(1.0, study.threads * study.workers)))


def runs_of(planned: PlannedStudy) -> int:
    """Runs that a study makes at most: its trials, and the chosen config with the seeds that no trial had."""
    return planned.study.trials + len([s for s in planned.study.seeds if s != planned.run.seed])


def seconds_per_run(planned: PlannedStudy, runs: pl.DataFrame) -> float | None:
    """Seconds of one run: from runs like it in the store, else the tier's bound for the pixels that it trains on; None
    at tier paper."""
    run, study = planned.run, planned.study
    like = runs.filter(
        pl.col("status") == "done",
        pl.col("method") == run.method,
        pl.col("backbone") == run.backbone,
        pl.col("tier") == run.tier,
        # Images of another size, and other arithmetic on another machine, tell little.
        pl.col("dataset") == planned.part.dataset.name,
        pl.col("precision") == run.precision,
        pl.col("device").str.starts_with("cpu") == (study.gpus == 0),
        pl.col("world_size") == study.workers,
    )
    per_step = []
    for row in like.iter_rows(named=True):
        try:
            config, spent_by = json_of(row, "config"), json_of(row, "seconds")
        except StoreError:
            continue  # one row less to learn from
        if config["crop"] == run.crop and config["batch"] == run.batch:
            spent = sum(v for k, v in spent_by.items() if k not in (ALL_ATTEMPTS, BY_STAGE))
            per_step.append(spent / max(1, int(row["iterations"])))
    if per_step:
        return sum(per_step) / len(per_step) * run.total
    bound = TIER_CORE_SECONDS.get(run.tier)
    if bound is None:
        return None
    usual = run.chosen.preset(planned.part.dataset.family, run.tier, run.variant)
    return bound * (run.total * run.batch * run.crop**2) / (usual.iterations * usual.batch * usual.crop**2)


def disk_needed(plan: Plan) -> int:
    """Bytes that a sweep needs at most: final weights of every run, and checkpoints and maps of those in progress."""
    total = 0
    for planned in plan.studies:
        size = 4 * backbone_parameters(planned.run.backbone)
        kept = 0 if "none" in planned.part.machine.keep else runs_of(planned) * 2 * size
        total += kept + CHECKPOINTS_IN_FLIGHT * size
    maps = [2 * _scored_images(p.part) * 2 * 2 * p.run.crop**2 for p in plan.studies]
    return total + max(maps, default=0)


def _scored_images(part: PlanRow) -> int:
    return len(part.splits.tune) + len(part.splits.report)


@lru_cache(maxsize=32)
def backbone_parameters(name: str) -> int:
    """Parameters of a backbone, counted without memory for them."""
    if name.startswith("shapes_"):
        return 500_000
    import timm
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())


def run_text(results: Results, key: str) -> str:
    """Scores and phases of one run of a store."""
    row = latest_runs(results.runs.filter(pl.col("key") == key)).row(0, named=True)
    lines = [f"run {key}: {row['method']} {row['variant']} on {row['dataset']}, seed {row['seed']}, {row['status']}"]
    if row["status"] != "done":
        return "\n".join([*lines, f"  {row['error_class']}: {row['error_message']}"])
    evals = results.evals.filter(pl.col("key") == key).sort("split", "target", "weights", "threshold_rule")
    for e in evals.iter_rows(named=True):
        threshold = "" if e["threshold"] is None else f" {e['threshold_rule']} threshold {e['threshold']:.2f}"
        lines.append(
            f"  {e['target']:<13}{e['weights']:<8} on {e['split']:<6} tags {e['tags']:<6}"
            f" mIoU {100 * miou_of(results, e['eval']):5.1f}{threshold}{_inference(e)}"
        )
    seconds = {k: v for k, v in json_of(row, "seconds").items() if k != ALL_ATTEMPTS}
    return "\n".join([*lines, phase_table(seconds)])


def _study_lines(plan: Plan, planned: PlannedStudy, key: str) -> list[str]:
    run, study = planned.run, planned.study
    searched = set(study.space.knobs) if study.space and study.budget > 1 else set()
    lines = [
        f"key of trial 0: {key}",
        f"crop {run.crop}, batch {run.batch}, group {run.group}, precision {run.precision}, labels {run.labels}, "
        f"variant {run.variant}, weights {planned.pretrained.label}",
        "knobs: " + ", ".join(f"{k}={_short(v)}{'*' if k in searched else ''}" for k, v in run.knobs.items()),
    ]
    if study.space and searched:
        lines.append("searched (*): " + "; ".join(f"{k} {study.space[k]}" for k in study.space))
    fitted = plan.fitted(planned)
    if fitted:
        lines.append("fitted to this size: " + ", ".join(f"{k}={_short(v)}" for k, v in fitted.items()))
    return lines


def _inference(e: Mapping[str, Any]) -> str:
    """How a segmenter saw the images, where that is more than one plain pass."""
    if e["target"] != "segmentation":
        return ""
    parts = [f"scales {e['scales']}"] * (e["scales"] != "1") + ["flip"] * bool(e["flip"])
    parts += [f"fused by {e['fusion']}"] * (bool(parts) or " " in e["fusion"])
    parts += [f"CRF {e['crf']}"] * (e["crf"] != "none")
    return f" ({', '.join(parts)})" if parts else ""


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
