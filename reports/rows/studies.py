"""Which runs stand for a study, which were spent on it, and which failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from harness.api.registry import registry
from harness.errors import first_line
from harness.plan.config import migrated, without_added
from harness.plan.studies import preference
from harness.store import Results, latest_runs
from harness.store.pretraining import pretraining_of
from harness.store.rows import phase_seconds
from reports.rows.data import data_of, from_json
from reports.rows.row import Failure, Filters

Runs: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Rows of the table `runs` by key."""


_SAME = (
    "method", "variant", "dataset", "supervision", "backbone", "decoder", "tier", "iterations", "protocol",
)  # fmt: skip


@dataclass(frozen=True)
class StoredStudy:
    """A study as the trials table has it: its finals by seed, and every run that was spent on it."""

    study: str
    protocol: str
    trials: int
    finals: tuple[str, ...]
    spent: tuple[str, ...] = ()


def failures_of(results: Results, filters: Filters) -> list[Failure]:
    """Failed runs under `filters`, and failed trials that left no run."""
    runs = chosen_runs(results, filters)
    out = [
        Failure(
            r["method"],
            r["study"] or "",
            r["trial"],
            r["seed"],
            r["error_class"] or "unknown",
            first_line(r["error_message"]),
            r["key"],
        )
        for r in runs.filter(pl.col("status") == "failed").sort("method", "study", "trial", "seed").to_dicts()
    ]
    if filters.dataset or filters.tier:
        return out  # a trial without a run says neither
    trials = _of_sweep(results.trials, filters).filter(pl.col("status") == "failed")
    lost = trials.join(results.runs.select("key"), on="key", how="anti").sort("study", "trial")
    return out + [
        Failure("", t["study"], t["trial"], None, "unknown", "no run was stored", t["key"]) for t in lost.to_dicts()
    ]


def chosen_runs(results: Results, filters: Filters) -> pl.DataFrame:
    runs = latest_runs(results.runs)
    if filters.sweep is not None:
        keys = _of_sweep(results.trials, filters)["key"].to_list()
        runs = runs.filter(pl.col("key").is_in(keys) | (pl.col("sweep") == filters.sweep))
    for name in ("dataset", "tier"):
        if (value := getattr(filters, name)) is not None:
            runs = runs.filter(pl.col(name) == value)
    return runs


def _of_sweep(trials: pl.DataFrame, filters: Filters) -> pl.DataFrame:
    return trials if filters.sweep is None else trials.filter(pl.col("sweep") == filters.sweep)


def by_key(runs: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {r["key"]: r for r in runs.to_dicts()}


def studies_of(results: Results, runs: Runs, filters: Filters) -> list[StoredStudy]:
    """The studies of a store; one that was run again by other code or on other data is one study for each."""
    trials = _of_sweep(results.trials, filters)
    out = []
    for _, group in trials.group_by("sweep", "study", "protocol", maintain_order=True):
        out += [study for part in _parts(group, runs) if (study := _study(part, runs)) is not None]
    planned = set(results.trials["key"])
    return out + _single_runs({k: r for k, r in runs.items() if k not in planned and r["status"] == "done"})


def _parts(group: pl.DataFrame, runs: Runs) -> list[pl.DataFrame]:
    """The trials of a study by the code and the data of their runs; those that left no run stand with the newest."""
    ran = sorted((runs[k] for k in group["key"].unique() if k in runs), key=lambda r: str(r["started"]))
    pixels = {data_of(r).images for r in ran} - {""}
    # Runs from before pixels were recorded stand with the only ones that there are.
    usual = pixels.pop() if len(pixels) == 1 else ""
    marks = list(dict.fromkeys(_made_of(r, usual) for r in reversed(ran)))
    if len(marks) < 2:
        return [group]
    of = [marks.index(_made_of(runs[k], usual)) if k in runs else 0 for k in group["key"]]
    marked = group.with_columns(mark=pl.Series(of))
    return [marked.filter(pl.col("mark") == n).drop("mark") for n in range(len(marks))]


def _made_of(run: Mapping[str, Any], images: str = "") -> tuple[object, ...]:
    """Code, data and pretrained weights: runs that differ here are no seeds of one row. `images` stands for unknown
    pixels."""
    data = data_of(run)
    return run["versions"], *data.labels, data.images or images, pretraining_of(run["pretraining"]).weights


def _study(group: pl.DataFrame, runs: Runs) -> StoredStudy | None:
    """The chosen trial, and the finals of its config; earlier choices may have left finals of theirs."""
    ended = group.filter(pl.col("status") == "done", pl.col("reached") >= 1.0).to_dicts()
    done = [t for t in ended if t["key"] in runs and runs[t["key"]]["status"] == "done"]
    if not done:
        return None
    trials = [t for t in done if t["role"] == "trial"]
    # Without a tuning split (protocol fixed) trials have no objective; there is one of them then.
    chosen = max(trials or done, key=lambda t: preference(t["objective"], t["trial"]))["key"]
    config = _config(runs[chosen])
    finals = [t["key"] for t in done if t["role"] == "final" and _config(runs[t["key"]]) == config]
    first = group.row(0, named=True)
    spent = tuple(k for k in group["key"].unique(maintain_order=True) if k in runs)
    budget = group.filter(pl.col("role") == "trial")["trial"].n_unique()
    return StoredStudy(first["study"], first["protocol"], max(1, budget), _by_seed([chosen, *finals], runs), spent)


def _config(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without its seed, the name that it was called by, and knobs that runs before it could not say."""
    values = {k: v for k, v in migrated(from_json(run["config"])).items() if k not in ("seed", "ablation")}
    chosen = registry().find(str(run["method"]))
    return values if chosen is None else without_added(values, chosen)


def _by_seed(keys: Iterable[str], runs: Runs) -> tuple[str, ...]:
    """One run for each seed, the newest, in order of seeds."""
    newest = {runs[k]["seed"] or 0: k for k in sorted(keys, key=lambda k: (str(runs[k]["started"]), k))}
    return tuple(newest[seed] for seed in sorted(newest))


def _single_runs(runs: Runs) -> list[StoredStudy]:
    """Runs outside any study (`harness.evaluate`): those that differ in the seed only are one row."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs.values():
        same = [*(run[k] for k in _SAME), *_made_of(run)]
        groups.setdefault(json.dumps([same, _config(run)], sort_keys=True), []).append(run)
    out = []
    for group in groups.values():
        keys = _by_seed((r["key"] for r in group), runs)
        study = "run " + keys[0][:8]
        spent = tuple(sorted(r["key"] for r in group))
        out.append(StoredStudy(study, group[0]["protocol"] or "fixed", 1, keys, spent))
    return out


def widest(studies: Iterable[StoredStudy]) -> list[StoredStudy]:
    """Each study once: a repeated sweep whose finals lie within another's adds nothing new."""
    kept: list[StoredStudy] = []
    for study in sorted(studies, key=lambda s: (-len(s.finals), -s.trials, -len(s.spent), s.study)):
        inside = [
            o
            for o in kept
            if o.protocol == study.protocol
            and set(study.finals) <= set(o.finals)
            and (o.study == study.study or o.trials == study.trials)
        ]
        if not inside:
            kept.append(study)
    return kept


def hours(runs: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """GPU-hours, and CPU core-hours of the runs without a GPU; failed and pruned work is part of both."""
    gpu = core = 0.0
    for run in runs:
        # A run that was stopped may not say which device it had.
        if (run["gpu_seconds"] or 0.0) > 0:
            gpu += run["gpu_seconds"]
        elif str(run["device"] or "cpu").startswith("cpu"):
            core += sum(phase_seconds(run).values()) * (run["world_size"] or 1) * (run["threads"] or 1)
    return gpu / 3600, core / 3600


def untimed(run: Mapping[str, Any]) -> bool:
    """Whether the store does not know how long a run took (it was stopped or failed)."""
    return not run["gpu_seconds"] and set(from_json(run["seconds"])) <= {"reached"}
