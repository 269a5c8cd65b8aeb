"""Writes one sweep into an MLflow server or database: sweep -> study -> trial as nested runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.errors import StoreError
from harness.store.reading import Results
from harness.store.rows import json_of
from harness.tracking.mlflow_names import (
    STATUS,
    TAGS,
    fingerprint,
    legal,
    params_of,
    phase_seconds,
    started_ms,
    unique_names,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "wsss-harness"
_METRICS_A_CALL = 900
_PARAMS_A_CALL = 100
"""MLflow takes 1000 metrics, params and tags together, of which 100 params."""
EXAMPLE = "example"
PER_CLASS = "per_class.json"


class Tracker:
    """One sweep in MLflow. Every write may be repeated: runs are found by their tags, and what was exported
    whole carries the digest of its content in the tag `exported`, set last."""

    def __init__(self, client: MlflowClient, store: Path, uri: str, sweep: str) -> None:
        self.client, self.store, self.sweep = client, store, sweep
        self.left_out = 0
        """Files that the store names outside itself."""
        self.experiment = self._experiment(uri)
        self.index: dict[tuple[str, str, str], tuple[str, str]] = {}
        """(kind, study, key) -> (MLflow's run id, `exported`)."""
        for run in self._search():
            tags = run.data.tags
            place = (tags.get("kind", ""), tags.get("study", ""), tags.get("key", ""))
            self.index[place] = (run.info.run_id, tags.get("exported", ""))
        self.root, _ = self._run("sweep", "", f"sweep:{sweep}", name=f"sweep {sweep[:12]}", parent=None)

    def knows(self, results: Results, study: str, key: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether this run of a study was exported as it is now; needs no params, counts or steps."""
        return self.index.get(("trial", study, key), ("", ""))[1] == _state(results, key, rows)

    def write_trial(self, results: Results, study: str, key: str, rows: Sequence[Mapping[str, Any]]) -> str:
        """Export one run of a study that is new or has changed; `rows` are its lines of the trials table.

        Answers created or updated.
        """
        run = _one(results.runs, key)
        evals = results.evals.filter(pl.col("key") == key)
        artifacts = results.artifacts.filter(pl.col("key") == key)
        parent = self._study(study, run)
        roles = ",".join(sorted({r["role"] for r in rows}))
        number = min((r["trial"] for r in rows if r["trial"] is not None), default=None)
        label = "run" if number is None else f"{'final' if roles == 'final' else 'trial'} {number}"
        name = f"{label} seed {run['seed']}" if run else label
        run_id, new = self._run("trial", study, key, name=name, parent=parent, start=started_ms(run or {}))
        tags = {"role": roles, **{t: run[t] for t in TAGS if run and run[t] is not None}}
        at = started_ms(run or {})
        metrics = [_metric(n, r[n], 0, at) for r in rows for n in ("objective", "reached") if r[n] is not None]
        params: dict[str, str] = {}
        if run:
            params = params_of(run, results.params.filter(pl.col("key") == key))
            metrics += _run_metrics(run, at)
            self.client.log_text(run_id, run["config"] or "{}", "config.json")
            if run["error_message"]:
                self.client.log_text(run_id, run["error_message"], "error.txt")
        metrics += _step_metrics(results.steps.filter(pl.col("key") == key), at)
        counts = results.counts.filter(pl.col("eval").is_in(evals["eval"].to_list()))
        metrics += self._evals(run_id, evals, counts, at, _class_names(run), new=new)
        self._batch(run_id, metrics, params, tags)
        self._pictures(run_id, artifacts)
        status = run["status"] if run else (rows[0]["status"] if rows else "failed")
        end = at + int(1000 * sum(phase_seconds(run).values())) if run and at else None
        self.client.set_terminated(run_id, STATUS.get(status, "FINISHED"), end)
        self._exported("trial", study, key, run_id, _state(results, key, rows))
        return "created" if new else "updated"

    def write_study(self, study: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Objectives over trials, and the end of a study."""
        place = ("study", study, f"study:{self.sweep}/{study}")
        state = fingerprint(list(rows))
        run_id, exported = self.index.get(place, ("", ""))
        if not run_id or exported == state:
            return
        trials = [r for r in rows if r["role"] == "trial" and r["objective"] is not None]
        self._batch(run_id, [_metric("objective", r["objective"], r["trial"] or 0, 0) for r in trials])
        self.client.set_terminated(run_id, "FINISHED")
        self._exported(*place, run_id, state)

    def write_sweep(self, leaderboard: str | None) -> None:
        """The leaderboard as an artefact, and the end of the sweep."""
        place = ("sweep", "", f"sweep:{self.sweep}")
        state = fingerprint(leaderboard)
        if self.index[place][1] == state:
            return
        if leaderboard is not None:
            self.client.log_text(self.root, leaderboard, "leaderboard.md")
        self.client.set_terminated(self.root, "FINISHED")
        self._exported(*place, self.root, state)

    def _experiment(self, uri: str) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None and found.lifecycle_stage != "active":
            raise StoreError(f"its experiment {found.experiment_id} ({EXPERIMENT}) was deleted")
        if found is not None:
            return str(found.experiment_id)
        # A server knows where its artefacts lie; a bare database would put them below the current folder.
        bare = uri.startswith("sqlite:")
        place = (self.store.resolve() / "mlflow-artifacts").as_uri() if bare else None
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=place))

    def _search(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment], f"tags.sweep = '{self.sweep}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _run(
        self, kind: str, study: str, key: str, *, name: str, parent: str | None, start: int | None = None
    ) -> tuple[str, bool]:
        known = self.index.get((kind, study, key))
        if known:
            return known[0], False
        tags = {"kind": kind, "sweep": self.sweep, "study": study, "key": key}
        if parent:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment, run_name=name, tags=tags, start_time=start or None)
        self.index[(kind, study, key)] = (run.info.run_id, "")
        return run.info.run_id, True

    def _study(self, study: str, run: Mapping[str, Any] | None) -> str:
        method = f"{run['method']} · " if run else ""
        run_id, _ = self._run(
            "study",
            study,
            f"study:{self.sweep}/{study}",
            name=f"{method}study {study[:24]}",
            parent=self.root,
        )
        return run_id

    def _exported(self, kind: str, study: str, key: str, run_id: str, state: str) -> None:
        self.client.set_tag(run_id, "exported", state)
        self.index[(kind, study, key)] = (run_id, state)

    def _batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Few calls: each is a commit, or a round trip."""
        from mlflow.entities import Param, RunTag

        items = [Param(k, v) for k, v in (params or {}).items()]
        labels = [RunTag(k, str(v)) for k, v in (tags or {}).items()]
        for start in range(0, max(len(metrics), len(items), 1), _METRICS_A_CALL):
            part = metrics[start : start + _METRICS_A_CALL]
            self.client.log_batch(run_id, metrics=part, tags=labels if start == 0 else ())
        for start in range(0, len(items), _PARAMS_A_CALL):
            self.client.log_batch(run_id, params=items[start : start + _PARAMS_A_CALL])

    def _evals(
        self, run_id: str, evals: pl.DataFrame, counts: pl.DataFrame, at: int, names: Sequence[str], *, new: bool
    ) -> list[Metric]:
        """Log the per-class table; answers the metrics of all evals."""
        from harness.scoring.metrics import iou, mious

        rows = {r["eval"]: r for r in evals.to_dicts()}
        labels = unique_names(evals)
        metrics: list[Metric] = []
        for scored in mious(counts, len(names) or None).to_dicts():
            row, label = rows[scored["eval"]], labels[scored["eval"]]
            step = row["step"] or 0
            if scored["miou"] is not None:
                metrics.append(_metric(f"miou/{label}", scored["miou"], step, at))
            metrics.append(_metric(f"excluded/{label}", scored["excluded"], step, at))
            if row["threshold"] is not None:
                metrics.append(_metric(f"threshold/{label}", row["threshold"], step, at))
        table = iou(counts)
        if not new:
            table = table.filter(~pl.col("eval").is_in(self._tabled(run_id)))
        if table.height:
            ids, classes = table["eval"].to_list(), table["class"].to_list()
            columns = {
                "scored": [labels[e] for e in ids],
                "class": classes,
                "name": [names[c] if c < len(names) else str(c) for c in classes],
                **{c: table[c].to_list() for c in ("iou", "tp", "fp", "fn")},
                "eval": ids,
            }
            self.client.log_table(run_id, columns, PER_CLASS)
        return metrics

    def _tabled(self, run_id: str) -> list[str]:
        """Evals that an earlier export put into the per-class table, to which `log_table` appends."""
        if PER_CLASS not in {f.path for f in self.client.list_artifacts(run_id)}:
            return []
        with tempfile.TemporaryDirectory() as folder:
            content = json.loads(Path(self.client.download_artifacts(run_id, PER_CLASS, folder)).read_text())
        at = content["columns"].index("eval")
        return sorted({row[at] for row in content["data"]})

    def _pictures(self, run_id: str, artifacts: pl.DataFrame) -> None:
        """Send the examples. A store may come from elsewhere: what it names outside itself stays on this machine."""
        for row in artifacts.filter(pl.col("kind") == EXAMPLE).sort("path").to_dicts():
            path = self.store / row["path"]
            if not path.is_file():
                continue
            if path.resolve().is_relative_to(self.store.resolve()):
                self.client.log_artifact(run_id, str(path), "examples")
            else:
                self.left_out += 1


def _metric(name: str, value: float, step: int, at: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(legal(name), float(value), at, int(step))


def _run_metrics(run: Mapping[str, Any], at: int) -> list[Metric]:
    values = {f"seconds/{k}": v for k, v in phase_seconds(run).items()}
    values.update({k: run[k] for k in ("gpu_seconds", "peak_memory", "steps_lost") if run[k] is not None})
    return [_metric(k, v, 0, at) for k, v in values.items()]


def _step_metrics(steps: pl.DataFrame, at: int) -> list[Metric]:
    return [
        _metric(f"{r['stage']}/{r['name']}", r["value"], r["step"], at)
        for r in steps.sort("stage", "name", "step").to_dicts()
        if r["value"] is not None
    ]


def _state(results: Results, key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Digest of what an export of a run depends on: equal ones need no second export."""
    evals = results.evals.filter(pl.col("key") == key)
    artifacts = results.artifacts.filter(pl.col("key") == key)
    return fingerprint(_one(results.runs, key), list(rows), sorted(evals["eval"]), artifacts.sort("path").to_dicts())


def _one(runs: pl.DataFrame, key: str) -> dict[str, Any] | None:
    mine = runs.filter(pl.col("key") == key)
    return None if mine.is_empty() else mine.row(0, named=True)


def _class_names(run: Mapping[str, Any] | None) -> tuple[str, ...]:
    config = json_of(run, "config") if run else {}
    return tuple(str(n) for n in config.get("class_names") or ())
