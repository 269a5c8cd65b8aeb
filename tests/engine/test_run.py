"""Runs that are executed more than once: two writers of one key, and what earlier attempts cost."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest

import harness.store
from harness.engine import run as engine
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.plan import make_plan
from harness.store.maintenance import compact
from harness.words import Words, parse

WORDS = [
    "method=cam", "ray=off", "data.n_train=8", "data.n_val=3", "data.n_test=4", "crop=48", "batch=4", "group=2",
    "iterations=4",
]  # fmt: skip
TABLES = ("evals", "counts", "curves", "params", "steps", "artifacts")


def payload_of(store, *more):
    plan = make_plan(parse([*WORDS, f"store={store}", *more], Words, "train", ["cam"]), single=True)
    study = dataclasses.replace(plan.studies[0].study, trials=1, seeds=(0,), space=None)
    return plan.resolve(study, {}, 0).payload


def whole(store, key):
    """The run's tables, after checking that each eval has its counts."""
    results = harness.store.load(store)
    evals = results.evals.filter(pl.col("key") == key)
    assert evals.height > 0
    assert set(evals["eval"]) == set(results.counts["eval"])
    return results


def test_two_writers_of_one_key_leave_one_whole_run(tmp_path, monkeypatch):
    payload = payload_of(tmp_path)
    key = payload["key"]
    assert execute(payload, LocalSession()).status == "done"
    first = whole(tmp_path, key)

    # A second process at the same key is killed after each of its tables in turn: the done run stays whole.
    real = engine.write_atomic
    for survived in range(len(TABLES)):
        written = []

        def killed(frame, path, survived=survived, written=written):
            if len(written) == survived:
                raise KeyboardInterrupt
            written.append(path)
            real(frame, path)

        monkeypatch.setattr(engine, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(payload, LocalSession())
        results = whole(tmp_path, key)
        assert results.counts.sort(pl.all()).equals(first.counts.sort(pl.all()))
    monkeypatch.setattr(engine, "write_atomic", real)

    assert execute(payload, LocalSession()).status == "done"
    results = whole(tmp_path, key)
    assert results.runs["status"].to_list() == ["done", "done"]
    assert results.evals.height == first.evals.height
    assert not results.evals["seconds"].equals(first.evals["seconds"]), "the newest attempt counts"
    assert harness.store.digest(results) == harness.store.digest(first)

    compact(tmp_path)
    assert execute(payload, LocalSession()).status == "done"
    results = whole(tmp_path, key)
    assert results.evals.height == first.evals.height, "merged files are not written a second time beside"
    assert results.counts.height == first.counts.height
