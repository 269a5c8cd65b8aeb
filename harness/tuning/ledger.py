"""The driver's side of the store: what is already known of a run, and rows for trials, pruned and failed runs."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from harness.engine.heartbeat import FILE as HEARTBEAT_FILE
from harness.engine.heartbeat import read_heartbeat
from harness.engine.inference.score import stored_objective
from harness.errors import StoreError, first_line, without_secrets
from harness.files import write_json
from harness.plan.payload import Payload
from harness.plan.plan import Plan, PlanRow
from harness.plan.rebuilt import RUNG
from harness.plan.studies import ClosedTrial, Outcome, Study, key_now
from harness.store import MissingRows, Store, StoreWarning, latest_runs, load
from harness.store.files import NewerFile
from harness.store.maintenance import reopen
from harness.store.outlines import SWEEPS
from harness.store.rows import json_of, param_rows
from harness.tuning.asha import Asha
from harness.tuning.faults import BAD_INPUT


@dataclass
class Ledger:
    """The hooks of a sweep (`harness.plan.studies.Hooks`): resolves trials, knows finished ones, records all."""

    plan: Plan
    store: Store
    retry_failed: bool = False
    on_closed: Callable[[str], object] = lambda key: None
    """Called with the key of each run that was written, for the MLflow export."""
    failed: list[str] = field(default_factory=list)
    _runs: dict[str, dict[str, Any]] | None = None
    _stored_trials: dict[str, list[dict[str, Any]]] | None = None
    _lost: set[str] = field(default_factory=set)
    _payloads: dict[str, Payload] = field(default_factory=dict)
    _parts: dict[str, PlanRow] = field(default_factory=dict)

    def resolve(self, study: Study, knobs: Mapping[str, Any], seed: int) -> Payload:
        """The run with these knobs and seed."""
        planned = self.plan.resolve(study, knobs, seed)
        for one in (planned, planned.under_earlier_key()):
            if one is not None:
                self._payloads[one.key] = one
                self._parts[one.key] = self.plan.planned(study.id).part
        key = planned.stands_as(self._known_runs())
        if key != planned.key and self.known(key) is None:
            return planned  # its scores are lost: it is made again as a run of today
        return self._payloads[key]

    def known(self, key: str) -> Outcome | None:
        """What the store already says of a run; None where it has to be run, again where its scores are lost."""
        try:
            return self._known(key)
        except NewerFile as newer:
            # One row is blocked: run again it would write over what it cannot read.
            return Outcome(status="failed", reached=0.0, error_class=BAD_INPUT, error_message=str(newer))

    def _known(self, key: str) -> Outcome | None:
        row = self._known_runs().get(key)
        if row is None:
            row = self._written_since(key)
        if row is None or (row["status"] == "failed" and self.retry_failed):
            return None
        if row["status"] == "failed":
            return Outcome(
                status="failed", reached=0.0, error_class=row["error_class"], error_message=row["error_message"]
            )
        if row["status"] == "pruned":
            return self._pruned(key)
        try:
            return Outcome(status="done", objective=self._objective(key, row))
        except MissingRows as lost:
            if key not in self._lost:
                self._lost.add(key)
                reopen(self.store.root, key)
                print(f"{row['method']} seed {row['seed']}, run {key}, is made again: {lost}", flush=True)
            return None

    def closed_trials(self, study: Study) -> list[ClosedTrial]:
        """Closed trials of this study in the store, whatever sweep wrote them, that would still run under their key."""
        found = []
        mine = [r for rows in self._trials().values() for r in rows if r["study"] == study.id and r["role"] == "trial"]
        for trial, key in sorted({(int(r["trial"]), str(r["key"])) for r in mine}):
            run = self._known_runs().get(key)
            try:
                knobs = {} if run is None else json_of(run, "config").get("knobs", {})
            except StoreError as error:
                warnings.warn(f"{error}; left out", StoreWarning, stacklevel=2)
                continue
            if run is None or key_now(self, study, knobs) != key:
                continue
            outcome = self.known(key)
            if outcome is not None:
                found.append(ClosedTrial(trial, knobs, key, outcome))
        return found

    def rung(self, study: Study, key: str, reached: float, objective: float) -> None:
        """Write what a trial scored at a rung."""
        step = round(reached * self.plan.planned(study.id).run.total)
        row = {"key": key, "stage": RUNG, "step": step, "name": "objective", "value": objective}
        self.store.write("steps", _rung_name(key, reached), pl.DataFrame([row]), again=True)

    def rungs(self, study: Study, key: str) -> dict[float, float]:
        """What a trial scored at its rungs, by share of T."""
        found = {}
        for reached in Asha.of(study).rungs:
            # Without its score there is one trial less to compare with.
            with contextlib.suppress(MissingRows):
                found[reached] = float(self.store.read("steps", _rung_name(key, reached))["value"][0])
        return found

    def record(self, study: Study, trial: int, role: str, seed: int, key: str, outcome: Outcome) -> None:
        """Write the row of `trials`, and of `runs` where the run itself could not (pruned, failed)."""
        if outcome.status != "done":
            self._write_unfinished(key, outcome, study, trial, role)
            self._forget_heartbeat(key)
        row = {
            "sweep": self.plan.sweep,
            "study": study.id,
            "trial": trial,
            "key": key,
            "role": role,
            "protocol": study.protocol,
            "status": outcome.status,
            "reached": outcome.reached,
            "objective": outcome.objective,
        }
        name = f"{self.plan.sweep}-{study.id}-{trial:04d}-{role}-{seed}"
        schema = {"objective": pl.Float64, "reached": pl.Float64}
        self.store.write("trials", name, pl.DataFrame([row], schema_overrides=schema), again=True)
        if outcome.status == "failed":
            self.failed.append(
                f"{study.id} {role} {trial} seed {seed}, run {key}: {outcome.error_class}: "
                f"{first_line(outcome.error_message) or 'it left no message'}"
            )
        self.on_closed(key)

    def write_plan(self) -> None:
        """Leave the plan's outline in the store, for `status`."""
        folder = self.store.root / SWEEPS
        outline = {
            "sweep": self.plan.sweep,
            "pid": os.getpid(),
            "words": [{k: without_secrets(v) for k, v in part.given.items()} for part in self.plan.parts],
            "studies": [
                {"id": p.study.id, "method": p.study.method, "trials": p.study.trials, "seeds": list(p.study.seeds)}
                for p in self.plan.studies
            ],
        }
        try:
            write_json(folder / f"{self.plan.sweep}.json", outline)
        except OSError as e:
            raise StoreError(f"the plan could not be written to {folder}: {e}") from e

    def _known_runs(self) -> dict[str, dict[str, Any]]:
        if self._runs is None:
            rows = latest_runs(load(self.store.root, ["runs"]).runs)
            self._runs = {r["key"]: r for r in rows.iter_rows(named=True)}
        return self._runs

    def _written_since(self, key: str) -> dict[str, Any] | None:
        if not self.store.has("runs", key):
            return None
        row = latest_runs(self.store.read("runs", key)).row(0, named=True)
        self._known_runs()[key] = row
        return row

    def _trials(self) -> dict[str, list[dict[str, Any]]]:
        """The table of trials as it was when the sweep began, by run."""
        if self._stored_trials is None:
            self._stored_trials = {}
            for row in load(self.store.root, ["trials"]).trials.iter_rows(named=True):
                self._stored_trials.setdefault(row["key"], []).append(row)
        return self._stored_trials

    def _pruned(self, key: str) -> Outcome:
        rows = [r for r in self._trials().get(key, []) if r["status"] == "pruned"]
        if not rows:  # its driver died before it wrote the row
            return Outcome(status="pruned", reached=0.0)
        last = max(rows, key=lambda r: float(r["reached"] or 0.0))
        return Outcome(status="pruned", objective=last["objective"], reached=last["reached"])

    def _seconds_spent(self, key: str) -> float:
        """Wall seconds between the first and the last heartbeat of a run that left no phases."""
        heartbeat = read_heartbeat(self.store.root, key)
        return max(0.0, float(heartbeat.get("updated", 0.0)) - float(heartbeat.get("started", 0.0)))

    def _forget_heartbeat(self, key: str) -> None:
        """A run whose row is written is no longer in progress; the work folder goes where nothing else is in it."""
        (self.store.work(key) / HEARTBEAT_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.store.work(key).rmdir()

    def _objective(self, key: str, row: Mapping[str, Any]) -> float:
        """Raises MissingRows where the run was not scored as its study needs, or what it stored is gone."""
        part, target = self._parts.get(key, self.plan.parts[0]), self.plan.target(str(row["config"]))
        return stored_objective(self.store, row, target, part.splits, part.machine.protocol)

    def _write_unfinished(self, key: str, outcome: Outcome, study: Study, trial: int, role: str) -> None:
        known = self._known_runs().get(key)
        same = known is not None and all(
            known[name] == getattr(outcome, name) for name in ("status", "error_class", "error_message")
        )
        if same and not self.retry_failed:
            return
        payload = self._payloads[key]
        spent = self._seconds_spent(key)
        row = payload.with_origin(sweep=self.plan.sweep, study=study.id, trial=trial, role=role).row(
            outcome.status,
            error_class=outcome.error_class,
            error_message=outcome.error_message,
            seconds=json.dumps({"reached": outcome.reached, "unfinished": spent}),
            device="cuda" if study.gpus else "cpu",
            world_size=study.workers,
            gpu_seconds=spent * study.workers * study.gpus,
        )
        self.store.write("runs", key, pl.DataFrame([row]), again=True)
        if not self.store.has("params", key):
            self.store.write("params", key, param_rows(key, payload.run.knobs, payload.run.base_knobs))
        self._known_runs()[key] = row


def _rung_name(key: str, reached: float) -> str:
    return f"{key}-rung{round(100 * reached)}"
