"""What a run, a study and a sweep show in MLflow: plain values made from the store's rows, without MLflow."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
from PIL import Image

from harness.errors import StoreError, command
from harness.scoring.metrics import iou, mious
from harness.store.reading import Results, latest_runs
from harness.store.rows import json_of, phase_seconds
from harness.store.schema import empty
from harness.tracking.mlflow_names import (
    EXAMPLES,
    FACTS,
    FORMAT,
    OBJECTIVE,
    SCORE,
    STATUS,
    TAGS,
    facts_of,
    fingerprint,
    params_of,
    percent,
    started_ms,
    unique_names,
)

Rows: TypeAlias = Sequence[Mapping[str, Any]]
EXAMPLE = "example"
"""Kind of the pictures among `artifacts`."""


@dataclass(frozen=True)
class Value:
    """A point of a series, or without a step a value that a run has once: MLflow draws it as a bar, where it would
    draw a line of one dot at any step but 0."""

    name: str
    value: float
    step: int | None = None


@dataclass(frozen=True)
class Content:
    """What stands behind one run of MLflow."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    values: Sequence[Value] = ()
    files: Mapping[str, str | Path] = field(default_factory=dict)
    """Text, or the file that is sent, by its path among the artefacts."""
    data: Sequence[tuple[str, str, str, str]] = ()
    """Data sets: name, digest, what for, words that chose them."""
    note: str = ""
    """Markdown; names of artefacts below it become links."""
    links: Sequence[str] = ()
    status: str = "FINISHED"
    start: int = 0
    """Milliseconds since 1970, 0 where nobody knows."""
    end: int | None = None
    left_out: int = 0
    """Pictures that the store names outside itself."""


class Outline:
    """The tables with few rows a run (runs, evals, artifacts), by run."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.runs: dict[str, dict[str, Any]] = {r["key"]: r for r in latest_runs(results.runs).iter_rows(named=True)}
        self._evals = _by_key(results.evals)
        self._artifacts = _by_key(results.artifacts)

    def evals(self, key: str) -> pl.DataFrame:
        """The evals of a run."""
        return self._evals.get(key, empty("evals"))

    def artifacts(self, key: str) -> pl.DataFrame:
        """The artefacts of a run."""
        return self._artifacts.get(key, empty("artifacts"))

    def state(self, key: str, rows: Rows) -> str:
        """Digest of what an export of a run depends on: equal ones need no second export."""
        artifacts = self.artifacts(key).sort("path").to_dicts()
        return fingerprint(FORMAT, self.runs.get(key), list(rows), sorted(self.evals(key)["eval"]), artifacts)


def of_run(key: str, rows: Rows, outline: Outline, content: Results, store: Path) -> Content:
    """One run of a study; `rows` are its lines of the trials table, `content` has its counts, params and steps."""
    run, evals = outline.runs.get(key), outline.evals(key)
    names = _class_names(run)
    labels = unique_names(evals)
    roles = ",".join(sorted({r["role"] for r in rows}))
    number = min((r["trial"] for r in rows if r["trial"] is not None), default=None)
    values = [
        Value(n, f(r[n])) for r in rows for n, f in ((OBJECTIVE, percent), ("reached", float)) if r[n] is not None
    ]
    params: dict[str, str] = {}
    files: dict[str, str | Path] = {}
    if run:
        params = params_of(run, content.params.filter(pl.col("key") == key))
        values += _costs(run)
        files["config.json"] = run["config"] or "{}"
        if run["error_message"]:
            files["error.txt"] = run["error_message"]
    values += _steps(content.steps.filter(pl.col("key") == key))
    counts = content.counts.filter(pl.col("eval").is_in(evals["eval"].to_list()))
    values += _scores(evals, counts, labels, len(names) or None)
    tables = _per_class(evals, counts, labels, names)
    pictures, left_out = _pictures(outline.artifacts(key), store)
    files |= tables | pictures
    tags = {"role": roles, "trial": number, **{t: run[t] for t in TAGS if run}, **source_tags([run] if run else [])}
    tags["mlflow.loggedArtifacts"] = json.dumps([{"path": path, "type": "table"} for path in tables])
    status = run["status"] if run else (rows[0]["status"] if rows else "failed")
    at = started_ms(run or {})
    end = at + int(1000 * sum(phase_seconds(run).values())) if run and at else None
    return Content(_run_name(run, roles, number), _texts(tags), params, values, files, start=at, end=end,
                   links=[EXAMPLES] if EXAMPLES in files else [], status=STATUS.get(status, "FINISHED"),
                   left_out=left_out)  # fmt: skip


def _run_name(run: Mapping[str, Any] | None, roles: str, number: int | None) -> str:
    parts = [run["method"]] if run else []
    parts += ["run" if not parts else ""] if number is None else [f"trial {number}"]
    parts += [f"seed {run['seed']}"] if run else []
    return " ".join(p for p in parts if p) + (", final" if roles == "final" else "")


def _costs(run: Mapping[str, Any]) -> list[Value]:
    values = {f"seconds/{k}": v for k, v in phase_seconds(run).items()}
    values |= {k: run[k] for k in ("gpu_seconds", "peak_memory", "steps_lost") if run[k] is not None}
    return [Value(k, v) for k, v in values.items()]


def _steps(steps: pl.DataFrame) -> list[Value]:
    """Series over training. What has a single point (of a short run, at a rung) is none."""
    rows = steps.drop_nulls("value").sort("stage", "name", "step")
    alone = rows.with_columns(pl.len().over("stage", "name").alias("points"))
    return [
        Value(f"{r['stage']}/{r['name']}", r["value"], r["step"] if r["points"] > 1 else None)
        for r in alone.iter_rows(named=True)
    ]


def _scores(evals: pl.DataFrame, counts: pl.DataFrame, labels: Mapping[str, str], classes: int | None) -> list[Value]:
    thresholds = dict(evals.select("eval", "threshold").iter_rows())
    values = []
    for scored in mious(counts, classes).iter_rows(named=True):
        label = labels[scored["eval"]]
        if scored["miou"] is not None:
            values.append(Value(f"{SCORE}{label}", percent(scored["miou"])))
        if scored["excluded"]:
            values.append(Value(f"excluded/{label}", scored["excluded"]))
        if thresholds[scored["eval"]] is not None:
            values.append(Value(f"threshold/{label}", thresholds[scored["eval"]]))
    return values


def _per_class(
    evals: pl.DataFrame, counts: pl.DataFrame, labels: Mapping[str, str], names: Sequence[str]
) -> dict[str, str]:
    """A table for each target and split, as MLflow's `log_table` writes them: a line for each class and scoring."""
    columns = ["scored", "class", "name", "IoU %", "tp", "fp", "fn"]
    where = {r["eval"]: f"per_class/{r['target']}-{r['split']}.json" for r in evals.iter_rows(named=True)}
    lines: dict[str, list[list[Any]]] = {}
    for r in iou(counts).iter_rows(named=True):
        name = names[r["class"]] if r["class"] < len(names) else str(r["class"])
        share = None if r["iou"] is None else round(percent(r["iou"]), 2)
        lines.setdefault(where[r["eval"]], []).append(
            [labels[r["eval"]], r["class"], name, share, r["tp"], r["fp"], r["fn"]]
        )
    return {
        path: json.dumps({"columns": columns, "data": sorted(lines[path], key=lambda c: c[:2])})
        for path in sorted(lines)
    }


def _pictures(artifacts: pl.DataFrame, store: Path) -> tuple[dict[str, str | Path], int]:
    """The examples, each as it is and all with their captions on one page, and how many stay behind: a store may come
    from elsewhere, and what it names outside itself is not sent."""
    found: dict[str, str | Path] = {}
    left_out = 0
    figures = []
    for row in artifacts.filter(pl.col("kind") == EXAMPLE).sort("path").iter_rows(named=True):
        path = store / row["path"]
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(store.resolve()):
            left_out += 1
            continue
        found[f"examples/{path.name}"] = path
        figures.append(_figure(path))
    if figures:
        found[EXAMPLES] = "<!doctype html><meta charset=utf-8><title>Examples</title>" + "\n".join(figures) + "\n"
    return found, left_out


def _figure(path: Path) -> str:
    try:
        with Image.open(path) as image:
            caption = str(image.info.get("Description") or path.stem)
    except OSError as error:
        raise StoreError(f"{path} is no picture: {error}") from error
    picture = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{picture}"><figcaption>{text}</figcaption></figure>'


def _by_key(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {str(k[0]): part for k, part in frame.partition_by("key", as_dict=True).items()}


def _class_names(run: Mapping[str, Any] | None) -> tuple[str, ...]:
    config = json_of(run, "config") if run else {}
    return tuple(str(n) for n in config.get("class_names") or ())


def _texts(tags: Mapping[str, Any]) -> dict[str, str]:
    return {k: str(v) for k, v in tags.items() if v is not None}


def source_tags(runs: Rows, words: Sequence[Mapping[str, str]] = ()) -> dict[str, str]:
    """The command and the commit, where MLflow looks for them."""
    commits = sorted({str(r["git_commit"]).rstrip("+") for r in runs if r["git_commit"]})
    name = command("harness.sweep", **words[0]) if len(words) == 1 else "python -m harness.sweep"
    return {
        "mlflow.source.name": name,
        "mlflow.source.type": "LOCAL",
        **({"mlflow.source.git.commit": commits[0]} if len(commits) == 1 else {}),
    }


def common_facts(runs: Rows) -> dict[str, str]:
    """The facts in which runs agree; those that are a run's own (seed) only where it stands alone."""
    facts = [facts_of(run) for run in runs]
    found = {name: {f[name] for f in facts if name in f} for name in FACTS if name != "seed"}
    return {name: next(iter(values)) for name, values in found.items() if len(values) == 1}
