"""Which runs stand for a study, which were spent on it, and which failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from harness.store import Results, latest_runs
from reports.row import Failure, Filters

Runs: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Rows of the table `runs` by key."""


_SAME = (
    "method", "variant", "dataset", "supervision", "backbone", "decoder", "tier", "iterations", "protocol",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
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


def first_line(message: str | None) -> str:
    """The last non-empty line of a traceback, or the first of a plain message."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


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


def studies_of(results: Results, runs: Runs, filters: Filters) -> list[Study]:
    """The studies of a store; one that was run again by other versions of the code is one study for each."""
    trials = _of_sweep(results.trials, filters)
    out = []
    for _, group in trials.group_by("sweep", "study", "protocol", maintain_order=True):
        out += [study for part in _by_versions(group, runs) if (study := _study(part, runs)) is not None]
    planned = set(results.trials["key"])
    return out + _single_runs([r for k, r in runs.items() if k not in planned and r["status"] == "done"])


def of_same_code(results: Results, key: str) -> pl.Series:
    """Keys of the runs that the same versions of the code made."""
    runs = results.runs
    return runs.filter(pl.col("versions").is_in(runs.filter(pl.col("key") == key)["versions"].implode()))["key"]


def _by_versions(group: pl.DataFrame, runs: Runs) -> list[pl.DataFrame]:
    """The trials of a study by the code that ran them; those that left no run stand with the newest."""
    ran = sorted((runs[k] for k in group["key"].unique() if k in runs), key=lambda r: str(r["started"]))
    versions = list(dict.fromkeys(r["versions"] for r in reversed(ran)))
    if len(versions) < 2:
        return [group]
    of = [runs[k]["versions"] if k in runs else versions[0] for k in group["key"]]
    marked = group.with_columns(versions=pl.Series(of))
    return [marked.filter(pl.col("versions") == v).drop("versions") for v in versions]


def _study(group: pl.DataFrame, runs: Runs) -> Study | None:
    """Finals are the rows of that role; without any, the best full trial, the lowest of equals."""
    done = group.filter(pl.col("status") == "done", pl.col("reached") >= 1.0, pl.col("key").is_in(list(runs)))
    finals = done.filter(pl.col("role") == "final")
    if finals.is_empty():
        # Without a tuning split (protocol fixed) trials have no objective; there is one of them then.
        full = done.filter(pl.col("role") == "trial").with_columns(pl.col("objective").fill_nan(None))
        finals = full.sort("objective", "trial", descending=[True, False], nulls_last=True).head(1)
    keys = [k for k in finals["key"].unique(maintain_order=True) if runs[k]["status"] == "done"]
    if not keys:
        return None
    keys.sort(key=lambda k: (runs[k]["seed"], k))
    first = group.row(0, named=True)
    spent = tuple(k for k in group["key"].unique(maintain_order=True) if k in runs)
    trials = group.filter(pl.col("role") == "trial")["trial"].n_unique()
    return Study(first["study"], first["protocol"], max(1, trials), tuple(keys), spent)


def _single_runs(runs: Sequence[Mapping[str, Any]]) -> list[Study]:
    """Runs outside any study (`harness.train`): those that differ in the seed only are one row."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        config = {k: v for k, v in from_json(run["config"]).items() if k not in ("seed", "ablation")}
        same = [run[k] for k in _SAME]
        groups.setdefault(json.dumps([same, config], sort_keys=True), []).append(run)
    out = []
    for group in groups.values():
        keys = tuple(r["key"] for r in sorted(group, key=lambda r: (r["seed"] or 0, r["key"])))
        study = "run " + keys[0][:8]
        out.append(Study(study, group[0]["protocol"] or "fixed", 1, keys, keys))
    return out


def widest(studies: Iterable[Study]) -> list[Study]:
    """Each study once: a repeated sweep whose finals lie within another's adds nothing new."""
    kept: list[Study] = []
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
        if str(run["device"] or "cpu").startswith("cpu"):
            # A run that was stopped leaves its reached share there, which is no phase.
            wall = sum(float(v) for k, v in from_json(run["seconds"]).items() if k != "reached")
            core += wall * (run["world_size"] or 1) * (run["threads"] or 1)
        else:
            gpu += run["gpu_seconds"] or 0.0
    return gpu / 3600, core / 3600


def untimed(run: Mapping[str, Any]) -> bool:
    """Whether the store does not know how long a run took (it was stopped or failed)."""
    return not run["gpu_seconds"] and set(from_json(run["seconds"])) <= {"reached"}


def from_json(text: str | None) -> dict[str, Any]:
    values = json.loads(text) if text else {}
    return values if isinstance(values, dict) else {}
