"""Damaged files and NFS's locks under Ray: what a sweep stores is what an undisturbed run stores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nfs_flock
import pytest
import ray_faults
from test_faults_in_training import photos, words

from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.plan.payload import Payload
from harness.plan.plan import Plan, make_plan
from harness.store import Store, digest, load
from harness.tuning.drivers import run_studies
from harness.tuning.ledger import Ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TABLES = ("params", "curves", "steps", "artifacts")


def planned(tmp_path: Path, store: Path) -> tuple[Plan, Payload]:
    plan = make_plan([words(tmp_path / "photos", store)])
    return plan, plan.resolve(plan.studies[0].study, {}, 0)


@pytest.fixture
def right(tmp_path: Path) -> str:
    """What an undisturbed run of the same key stores."""
    photos(tmp_path / "photos")
    _, payload = planned(tmp_path, tmp_path / "whole")
    assert execute(payload, LocalSession()).status == "done"
    return digest(load(tmp_path / "whole"), payload.key)


def swept(tmp_path: Path, how: str = "harness.engine.run:execute") -> Payload:
    store = tmp_path / "store"
    plan, payload = planned(tmp_path, store)
    run_studies([p.study for p in plan.studies], Ledger(plan, Store(store)), execute=how, store_root=store)
    return payload


def test_a_checkpoint_with_a_flipped_bit_is_left_for_the_one_before(
    tmp_path: Path, right: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    _, payload = planned(tmp_path, store)
    fault = {"what": "spoil", "stage": "train", "step": 6, "times": 1}
    (tmp_path / "faults.json").write_text(json.dumps({payload.key: fault}))
    monkeypatch.setenv(ray_faults.FILE, str(tmp_path / "faults.json"))
    swept(tmp_path, "ray_faults:execute")
    assert (store / f"happened-{payload.key}").read_text() == "x"
    assert digest(load(store), payload.key) == right
    out = capfd.readouterr().out
    assert "the run starts again from its newest checkpoint" in out
    # A step is told before its own checkpoint is written.
    assert re.search(r"trial 0: checkpoint \S+/step-00000005 is damaged \(.*\): the one of step 4 is taken", out), out


def test_damaged_tables_and_cached_weights_are_made_again(
    tmp_path: Path, right: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    payload = swept(tmp_path)
    assert digest(load(store), payload.key) == right
    files = [Store(store).path(table, payload.key) for table in TABLES]
    for file in files:
        file.write_bytes(file.read_bytes()[:-9])
    weights = [p for p in (store / "cache").rglob("*.safetensors") if "step-" not in p.parent.name]
    assert weights, "the stage left no weights that a later run would read"
    for file in weights:
        file.write_bytes(b"")
    capfd.readouterr()
    swept(tmp_path)
    out = capfd.readouterr().out
    assert f"run {payload.key}, is made again" in out
    assert re.search("trial 0: .* is not what was written: stage train is made again", out), out
    assert digest(load(store), payload.key) == right
    assert all(file.exists() for file in files)
    swept(tmp_path)
    assert "is made again" not in capfd.readouterr().out


def test_runs_train_on_a_shared_store_whose_locks_are_those_of_nfs(
    tmp_path: Path, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setenv("LD_PRELOAD", nfs_flock.library(tmp_path / "lib"))
    payload = swept(tmp_path, "ray_faults:execute_on_nfs")
    assert digest(load(tmp_path / "store"), payload.key) == right
