"""Writes one sweep into an MLflow server or database: sweep -> study -> run as nested runs."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.tracking.mlflow_client import TRAINING
from harness.tracking.mlflow_content import Content
from harness.tracking.mlflow_home import home_of
from harness.tracking.mlflow_names import FORMAT, legal
from harness.tracking.mlflow_views import note, views

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "wsss-harness"
_NEWEST = 5
"""Sweeps that the experiment's description leads to."""
_A_CALL = 900
_PARAMS_A_CALL = 100
"""MLflow takes 1000 metrics, params and tags together, of which 100 params."""


@dataclass
class Known:
    """A run of MLflow that stands for something of the store."""

    run_id: str
    state: str = ""
    name: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    """Those that it has: MLflow never changes one."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value of each."""


class Tracker:
    """One sweep in MLflow. Every write may be repeated: runs are found by their tags, and what was exported
    whole carries the digest of its content in the tag `exported`, set last. Runs that an older harness exported in
    another way are made anew."""

    def __init__(self, client: MlflowClient, uri: str, sweep: str) -> None:
        self.client, self.sweep = client, sweep
        self.left_out = 0
        """Files that the store names outside itself."""
        self.tags: dict[str, str] = {}
        """Those of the experiment, as far as its views and its description are concerned."""
        self.experiment = self._experiment(home_of(uri))
        self.index: dict[tuple[str, str, str], Known] = {}
        for run in self._search():
            tags = run.data.tags
            if tags.get("format") != FORMAT:
                client.delete_run(run.info.run_id)
                continue
            place = (tags.get("kind", ""), tags.get("study", ""), tags.get("key", ""))
            self.index[place] = Known(run.info.run_id, tags.get("exported", ""), run.info.run_name, run.data.params,
                                      run.data.metrics)  # fmt: skip

    def knows(self, place: tuple[str, str, str], state: str) -> bool:
        """Whether what stands at (kind, study, key) was exported with this state."""
        return place in self.index and self.index[place].state == state

    def begin(self, place: tuple[str, str, str], name: str, parent: str | None, start: int = 0) -> str:
        """MLflow's run at (kind, study, key), made where there is none; `start` in milliseconds since 1970, 0 where
        nobody knows: MLflow never changes it."""
        if place not in self.index:
            self._create(place, name, parent, {}, start)
        return self.index[place].run_id

    def write(self, place: tuple[str, str, str], content: Content, state: str, parent: str | None) -> str:
        """Export what is new or has changed. Answers created or updated."""
        new = place not in self.index
        if new:
            self._create(place, content.name, parent, content.tags, content.start)
        known = self.index[place]
        if content.name != known.name:
            self.client.update_run(known.run_id, name=content.name)
            known.name = content.name
        self._files(known.run_id, content.files)
        self._inputs(known.run_id, content.data)
        self.client.set_terminated(known.run_id, content.status, content.end)
        tags = {**({} if new else content.tags), "exported": state}
        if note := self._note(known.run_id, content):
            tags["mlflow.note.content"] = note
        self._batch(known, content, tags)
        known.state = state
        self.left_out += content.left_out
        return "created" if new else "updated"

    def show(self, scored: Iterable[str], *, boards: bool) -> None:
        """Bring the experiment's saved views up to date with the names of metrics that runs have (each as often as one
        has it), and with `boards` its description, which links to the artefacts of the newest sweeps."""
        new = views(scored, self.tags)
        if boards:
            last = self.client.search_runs(
                [self.experiment], "tags.kind = 'sweep'", max_results=_NEWEST, order_by=["attributes.start_time DESC"]
            )
            base = f"#/experiments/{self.experiment}/runs"
            new |= note([(r.info.run_name, f"{base}/{r.info.run_id}{TRAINING}") for r in last], self.tags)
        for tag, text in new.items():
            self.client.set_experiment_tag(self.experiment, tag, text)
        self.tags |= new

    def _experiment(self, home: Path | None) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None and found.lifecycle_stage != "active":
            raise StoreError(f"its experiment {found.experiment_id} ({EXPERIMENT}) was deleted")
        if found is not None:
            self.tags = dict(found.tags)
            return str(found.experiment_id)
        # A server knows where its artefacts lie; a bare database would put them below the current folder.
        where = None if home is None else home.as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=where))

    def _search(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment], f"tags.sweep = '{self.sweep}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(
        self, place: tuple[str, str, str], name: str, parent: str | None, tags: Mapping[str, str], start: int
    ) -> None:
        kind, study, key = place
        own = {"kind": kind, "sweep": self.sweep, "study": study, "key": key, "format": FORMAT, **tags}
        if parent:
            own["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment, run_name=name, tags=own, start_time=start or None)
        self.index[place] = Known(run.info.run_id, name=name)

    def _files(self, run_id: str, files: Mapping[str, str | Path]) -> None:
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    shutil.copyfile(content, path)
                else:
                    path.write_text(content)
            self.client.log_artifacts(run_id, folder)

    def _inputs(self, run_id: str, data: Sequence[tuple[str, str, str, str]]) -> None:
        if not data:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for name, digest, context, words in data:
            source = json.dumps({"uri": words})
            tag = InputTag("mlflow.data.context", "training" if context == "train" else context)
            inputs.append(DatasetInput(Dataset(name, digest, "local", source), [tag]))
        self.client.log_inputs(run_id, datasets=inputs)

    def _note(self, run_id: str, content: Content) -> str:
        """The description, and links to the artefacts that people look for."""
        base = f"#/experiments/{self.experiment}/runs/{run_id}/artifacts"
        links = " · ".join(f"[{name.removesuffix('.html')}]({base}/{name}{TRAINING})" for name in content.links)
        return "\n\n".join(part for part in (links, content.note) if part)

    def _batch(self, known: Known, content: Content, tags: Mapping[str, str]) -> None:
        """Few calls: each is a commit, or a round trip. Tags go last, with the mark that all is there."""
        from mlflow.entities import Metric, Param, RunTag

        params = {k: v for k, v in content.params.items() if k not in known.params}
        once = {legal(v.name): float(v.value) for v in content.values if v.step is None}
        changed = {name: value for name, value in once.items() if known.metrics.get(name) != value}
        # Of two values at one step MLflow shows the one that was logged later; equal points it takes once.
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in changed.items()]
        metrics += [
            Metric(legal(v.name), float(v.value), content.start, v.step) for v in content.values if v.step is not None
        ]
        items = [Param(k, v) for k, v in params.items()]
        room = _A_CALL - _PARAMS_A_CALL
        while len(items) > _PARAMS_A_CALL or len(metrics) > room:
            self.client.log_batch(known.run_id, metrics=metrics[:room], params=items[:_PARAMS_A_CALL])
            metrics, items = metrics[room:], items[_PARAMS_A_CALL:]
        labels = [RunTag(k, v) for k, v in tags.items()]
        self.client.log_batch(known.run_id, metrics=metrics, params=items, tags=labels)
        known.params, known.metrics = {**known.params, **params}, {**known.metrics, **changed}
