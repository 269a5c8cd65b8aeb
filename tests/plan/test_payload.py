"""One payload for a run: its way through JSON, its row, and configs of earlier schemas."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.api.inference import PROTOCOLS
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.errors import StoreError
from harness.plan.config import SCHEMA, RunConfig, migrated
from harness.plan.payload import Origin, Payload
from harness.plan.plan import make_plan
from harness.store import load
from harness.store.schema import SCHEMAS

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def payload(tmp_path_factory):
    words = ["methods=pce", "labels=points", "tier=smoke", f"store={tmp_path_factory.mktemp('store')}", "keep=maps"]
    plan = make_plan(parse(words, Words, "sweep", ["pce"]))
    return plan.resolve(plan.studies[0].study, {"lr": 1e-3}, 5, trial=2, role="final")


def test_json_and_back(payload):
    found = Payload.from_dict(json.loads(json.dumps(payload.to_dict())))
    assert found == payload
    assert (found.run.knobs["lr"], found.run.seed, found.machine.keep) == (1e-3, 5, ("maps",))
    assert set(found.data.fingerprints) == {"train", "tune", "report", "weak"}
    assert found.data.class_names[0] == "background"


def test_a_payload_cannot_be_changed(payload):
    with pytest.raises(dataclasses.FrozenInstanceError):
        payload.key = "other"
    other = payload.with_origin(study="s", trial=7)
    assert other.origin == Origin(sweep=payload.origin.sweep, study="s", trial=7, role="final")
    assert payload.with_low_memory().machine.low_memory
    assert not payload.machine.low_memory


def test_fields_that_nobody_knows_or_gave_are_refused(payload):
    values = payload.to_dict()
    with pytest.raises(TypeError, match="labels"):
        Payload.from_dict({**values, "labels": {}})
    del values["versions"]
    with pytest.raises(TypeError, match="versions"):
        Payload.from_dict(values)


def test_the_row_has_every_column_and_reads_back(payload):
    row = payload.row("pruned", gpu_seconds=3.0)
    assert set(row) == set(SCHEMAS["runs"])
    assert (row["status"], row["gpu_seconds"], row["trial"], row["supervision"]) == ("pruned", 3.0, 2, "points")
    assert RunConfig.from_stored(row["config"]) == payload.run
    assert json.loads(row["config"])["class_names"] == list(payload.data.class_names)


def test_a_config_with_unknown_or_missing_fields_is_refused_by_name(payload):
    values = payload.run.to_dict()
    assert RunConfig.from_dict(values) == payload.run
    with pytest.raises(StoreError, match="unknown colour, size"):
        RunConfig.from_dict({**values, "size": 1, "colour": 2})
    for name in set(values) - {"schema"}:
        with pytest.raises(StoreError, match=f"missing {name}"):
            RunConfig.from_dict({k: v for k, v in values.items() if k != name})
    with pytest.raises(StoreError, match="unknown colour; missing crop"):
        RunConfig.from_dict({"colour": 2, **{k: v for k, v in values.items() if k != "crop"}})
    for schema in (0, SCHEMA + 1, "2"):
        with pytest.raises(StoreError, match=f"schema {schema!r}; this version reads 1 to {SCHEMA}"):
            RunConfig.from_dict({**values, "schema": schema})


def test_the_first_schema_is_migrated(payload):
    run = payload.run
    old = {k: v for k, v in run.to_dict().items() if k not in ("schema", "scoring")}
    assert RunConfig.from_dict({**old, "dataset": "shapes"}) == run
    assert migrated({**old, "dataset": "folder:pets"})["dataset"] == "folder"
    # Where inference was unusual, that schema said so.
    unusual = run.with_inference(PROTOCOLS["afa"])
    assert RunConfig.from_dict({k: v for k, v in unusual.to_dict().items() if k != "schema"}) == unusual
    # Nothing else is filled in.
    del old["split"]
    with pytest.raises(StoreError, match="missing split"):
        RunConfig.from_dict(old)


@pytest.mark.parametrize("store", sorted(path.name for path in RESULTS.iterdir() if path.is_dir()))
def test_every_stored_config_loads(store):
    rows = load(RESULTS / store, ["runs"]).runs
    for row in rows.iter_rows(named=True):
        run = RunConfig.from_stored(row["config"])
        assert (run.method, run.seed, run.total, run.labels) == (
            row["method"], row["seed"], row["iterations"], row["supervision"],
        )  # fmt: skip
        assert row["dataset"].partition(":")[0] == run.dataset
