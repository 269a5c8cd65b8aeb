"""What a study and a sweep show in MLflow: what was chosen, what it scored, what it cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.errors import command
from harness.plan.studies import preference
from harness.scoring.metrics import mious
from harness.store.rows import json_object, phase_seconds
from harness.tracking.mlflow_content import Content, Outline, Rows, Value, common_facts, source_tags
from harness.tracking.mlflow_names import OBJECTIVE, SCORE, percent, started_ms, unique_names

_NAMED = 4
"""Methods that a sweep's name lists."""
_DIGEST = 36
"""Characters of a data set's digest that MLflow takes."""


@dataclass(frozen=True)
class Chosen:
    """The best finished trial of a study, and the runs of its knobs, one for each seed."""

    trial: Mapping[str, Any]
    keys: tuple[str, ...]


def chosen_of(rows: Rows, runs: Mapping[str, Mapping[str, Any]]) -> Chosen | None:
    """What a study chose, from its lines of the trials table; None where no trial ran to its end."""
    ended = [r for r in rows if r["status"] == "done" and (r["reached"] or 0.0) >= 1.0 and r["key"] in runs]
    trials = [r for r in ended if r["role"] == "trial"] or ended
    if not trials:
        return None
    best = max(trials, key=lambda r: preference(r["objective"], r["trial"] or 0))
    finals = [r["key"] for r in ended if r["role"] == "final" and _knobs(runs[r["key"]]) == _knobs(runs[best["key"]])]
    by_seed = {runs[k]["seed"]: k for k in [best["key"], *finals]}
    return Chosen(best, tuple(by_seed[seed] for seed in sorted(by_seed, key=lambda s: s or 0)))


def study_name(study: str, run: Mapping[str, Any] | None) -> str:
    """`fsr on shapes, tags`; the study's id where it left no run."""
    return f"{run['method']} on {run['dataset']}, {run['supervision']}" if run else f"study {study[:24]}"


def sweep_name(sweep: str, runs: Rows) -> str:
    """`cam, fsr on shapes (3f2a...)`."""
    methods = sorted({str(r["method"]) for r in runs})
    more = [f"{len(methods) - _NAMED} more"] if len(methods) > _NAMED else []
    where = ", ".join(sorted({str(r["dataset"]) for r in runs}))
    return f"{', '.join(methods[:_NAMED] + more)} on {where} ({sweep[:12]})" if runs else f"sweep {sweep[:12]}"


def of_study(study: str, rows: Rows, outline: Outline, counts: pl.DataFrame) -> Content:
    """A study: its best trial, and what the chosen config scored, the mean over seeds; `counts` hold its evals."""
    runs = [outline.runs[k] for k in dict.fromkeys(r["key"] for r in rows) if k in outline.runs]
    chosen = chosen_of(rows, outline.runs)
    values = _tally(rows, runs) + _best_so_far(rows)
    tags: dict[str, str] = {}
    note = ["No trial has run to its end yet."]
    if chosen is not None:
        number, objective = chosen.trial["trial"], chosen.trial["objective"]
        values += [Value(OBJECTIVE, percent(objective))] if objective is not None else []
        scores = _scores(chosen.keys, outline, counts)
        values += [Value(f"{SCORE}{name}", round(statistics.fmean(found), 3)) for name, found in scores.items()]
        tags = {"best_trial": str(number), "chosen": " ".join(chosen.keys)}
        tags |= {f"chosen.{k}": str(v) for k, v in _knobs(outline.runs[chosen.keys[0]]).items()}
        note = _study_note(chosen, scores, sum(r["role"] == "trial" for r in rows))
    return Content(
        study_name(study, runs[0] if runs else None), {**tags, **source_tags(runs)}, common_facts(runs), values,
        data=data_of(runs), note="\n".join(note), start=min((started_ms(r) for r in runs), default=0), end=_end(runs),
    )  # fmt: skip


def of_sweep(
    sweep: str, rows: Rows, outline: Outline, words: Sequence[Mapping[str, str]], pages: Mapping[str, str]
) -> Content:
    """A sweep: what was asked for, how its runs ended, and `pages`, its leaderboard among them."""
    runs = [outline.runs[k] for k in dict.fromkeys(r["key"] for r in rows) if k in outline.runs]
    params = {**common_facts(runs), "methods": ", ".join(sorted({str(r["method"]) for r in runs}))}
    again = [command("harness.sweep", **given) for given in words]
    note = [f"mIoU in %, as everywhere in this experiment. {len({r['study'] for r in rows})} studies below it."]
    note += ["", "The same command goes on with it:", "", *(f"    {line}" for line in again)] if again else []
    return Content(
        sweep_name(sweep, runs), source_tags(runs, words), params, _tally(rows, runs), files=dict(pages),
        data=data_of(runs), note="\n".join(note), links=tuple(pages),
        start=min((started_ms(r) for r in runs), default=0), end=_end(runs),
    )  # fmt: skip


def data_of(runs: Rows) -> list[tuple[str, str, str, str]]:
    """The data sets that runs were trained and reported on: name, digest, what for, and the words that chose them."""
    found: dict[tuple[str, str], tuple[str, str, str, str]] = {}
    for run in runs:
        config = json_object(run["config"], f"run {run['key']}: its config")
        options = {f"data.{k}": v for k, v in dict(config.get("options") or {}).items() if v is not None}
        words = " ".join([f"data={run['dataset']}", *(f"{k}={v}" for k, v in sorted(options.items()))])
        prints = json_object(run["split_fingerprints"], f"run {run['key']}: its split_fingerprints")
        for split, digest in prints.items():
            if split not in ("density", "images") and isinstance(digest, str) and digest:
                name = f"{run['dataset']} {split}"
                found.setdefault((name, digest), (name, digest[:_DIGEST], split, words))
    return [found[place] for place in sorted(found)]


def _tally(rows: Rows, runs: Rows) -> list[Value]:
    ended = {r["key"]: r["status"] for r in rows}
    values = {f"runs/{status}": sum(s == status for s in ended.values()) for status in ("done", "pruned", "failed")}
    hours = {"hours": sum(sum(phase_seconds(r).values()) for r in runs) / 3600}
    gpu = sum(r["gpu_seconds"] or 0.0 for r in runs) / 3600
    return [Value(k, v) for k, v in {**values, **hours, **({"gpu_hours": gpu} if gpu else {})}.items()]


def _best_so_far(rows: Rows) -> list[Value]:
    """The highest objective after each trial; no series where only one trial has one."""
    trials = sorted((r for r in rows if r["role"] == "trial" and r["objective"] is not None), key=lambda r: r["trial"])
    best, out = 0.0, []
    for row in trials:
        best = max(best, row["objective"])
        out.append(Value("best objective so far", percent(best), row["trial"]))
    return out if len({r["trial"] for r in trials}) > 1 else []


def _scores(keys: Sequence[str], outline: Outline, counts: pl.DataFrame) -> dict[str, list[float]]:
    """mIoU in % by way of scoring, one for each seed that was scored so."""
    found: dict[str, list[float]] = {}
    for key in keys:
        names = unique_names(outline.evals(key))
        mine = counts.filter(pl.col("eval").is_in(list(names)))
        for scored in mious(mine).sort("eval").iter_rows(named=True):
            if scored["miou"] is not None:
                found.setdefault(names[scored["eval"]], []).append(percent(scored["miou"]))
    return dict(sorted(found.items()))


def _study_note(chosen: Chosen, scores: Mapping[str, Sequence[float]], trials: int) -> list[str]:
    objective = chosen.trial["objective"]
    tuned = "" if objective is None else f", objective {percent(objective):.1f} % on the split that tuning looks at"
    seeds = len(chosen.keys)
    lines = [f"Best of {trials} trials: trial {chosen.trial['trial']}{tuned}. Chosen config, {seeds} seed"
             f"{'s' if seeds > 1 else ''}:", "", "| scored | mIoU % |", "|---|---:|"]  # fmt: skip
    for name, found in scores.items():
        spread = f" ± {statistics.stdev(found):.1f} over {len(found)} seeds" if len(found) > 1 else ""
        lines.append(f"| {name} | {statistics.fmean(found):.1f}{spread} |")
    return lines


def _knobs(run: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json_object(run["config"], f"run {run['key']}: its config").get("knobs") or {})


def _end(runs: Rows) -> int | None:
    return max((at + int(1000 * sum(phase_seconds(r).values())) for r in runs if (at := started_ms(r))), default=None)
