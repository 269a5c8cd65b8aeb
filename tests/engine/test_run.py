"""Runs that are executed more than once: two writers of one key, and what earlier attempts cost."""

from __future__ import annotations

import dataclasses
import errno
import json
from types import SimpleNamespace

import polars as pl
import pytest
import torch

import harness.store
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.engine import run as engine
from harness.engine import turns
from harness.engine.checkpoint import best_meta
from harness.engine.context import Context
from harness.engine.leaving import NOTICE, Left
from harness.engine.phases import Phases
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.engine.stages import per_image
from harness.engine.stages.keys import stage_key
from harness.errors import StoreError
from harness.plan.plan import make_plan
from harness.plan.recipes import IMAGE_FIELDS, SCORING_FIELDS
from harness.store import Store
from harness.store.maintenance import compact
from harness.tuning.faults import attempt

WORDS = [
    "method=cam", "ray=off", "data.n_train=8", "data.n_val=3", "data.n_test=4", "crop=48", "batch=4", "group=2",
    "iterations=4",
]  # fmt: skip
CACHED = {"method": 0.0, "data": 0.0}
"""Seconds of phases that only training has."""
TABLES = ("evals", "counts", "curves", "params", "steps", "artifacts")


def payload_of(store, *more):
    plan = make_plan(parse([*WORDS, f"store={store}", *more], Words, "train", ["cam"]), single=True)
    study = dataclasses.replace(plan.studies[0].study, trials=1, space=None)
    return plan.resolve(study, {}, study.seeds[0])


def whole(store, key):
    """The run's tables, after checking that each eval has its counts."""
    results = harness.store.load(store)
    evals = results.evals.filter(pl.col("key") == key)
    assert evals.height > 0
    assert set(evals["eval"]) == set(results.counts["eval"])
    return results


def content_of(store):
    """Bytes of every file of the store's tables, and which files lie among its work."""
    files = {p.relative_to(store): p.read_bytes() for t in (*TABLES, "runs") for p in (store / t).glob("*.parquet")}
    return files, list((store / "work").rglob("*"))


def test_a_run_that_another_process_has_finished_is_not_run_again(tmp_path):
    payload = payload_of(tmp_path)
    first = execute(payload, LocalSession())
    before = content_of(tmp_path)
    assert execute(payload, LocalSession()) == first
    assert content_of(tmp_path) == before
    assert before[1] == [], "no folder of work is left"
    compact(tmp_path)
    before = content_of(tmp_path)
    assert execute(payload, LocalSession()) == first
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("finishes", [True, False])
def test_processes_at_one_key_take_turns_and_leave_one_row(tmp_path, monkeypatch, finishes):
    """The other one ends while this one waits: with its row, or killed."""
    payload, outcomes = payload_of(tmp_path), []
    other = turns.lock(Store(tmp_path).work(payload.key))
    assert other is not None

    def while_it_waits(seconds):
        assert seconds == turns.POLL_SECONDS
        assert not outcomes, "it waits no longer than the other one runs"
        assert not (Store(tmp_path).work(payload.key) / "progress.json").exists(), "the heartbeat is the other one's"
        other.close()
        outcomes.append(execute(payload, LocalSession()) if finishes else None)

    with monkeypatch.context() as patch:
        patch.setattr(turns, "time", SimpleNamespace(sleep=while_it_waits))
        mine = execute(payload, LocalSession())
    assert mine.status == "done"
    assert outcomes == [mine if finishes else None]
    results = whole(tmp_path, payload.key)
    assert results.runs["status"].to_list() == ["done"]
    assert results.runs["steps_lost"].to_list() == [0]


def test_a_run_that_waits_for_another_process_leaves_when_it_is_told(tmp_path, monkeypatch):
    payload = payload_of(tmp_path)
    with turns.lock(Store(tmp_path).work(payload.key)):
        monkeypatch.setattr(NOTICE, "told", lambda: True)
        with pytest.raises(Left, match="another process was at the same run"):
            execute(payload, LocalSession())
    assert harness.store.load(tmp_path).runs.is_empty()


def test_a_run_that_is_made_again_and_killed_never_stands_without_its_counts(tmp_path, monkeypatch):
    payload = payload_of(tmp_path)
    key = payload.key
    assert execute(payload, LocalSession()).status == "done"
    first = whole(tmp_path, key)
    # The table that is written last: only a whole attempt brings it back.
    (tmp_path / "artifacts" / f"{key}.parquet").write_bytes(b"")

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
        results = harness.store.load(tmp_path, ["evals", "counts"])
        assert results.counts.sort(pl.all()).equals(first.counts.sort(pl.all()))
    monkeypatch.setattr(engine, "write_atomic", real)

    assert execute(payload, LocalSession()).status == "done"
    results = whole(tmp_path, key)
    assert results.runs["status"].to_list() == ["done", "done"], "each attempt has a row"
    assert results.evals.height == first.evals.height
    assert not results.evals["seconds"].equals(first.evals["seconds"]), "the newest attempt counts"
    assert results.artifacts.sort(pl.all()).equals(first.artifacts.sort(pl.all()))
    assert harness.store.digest(results) == harness.store.digest(first)


def seconds_of(results, key):
    return json.loads(results.runs.filter(pl.col("key") == key)["seconds"][0])


def test_a_run_that_is_only_scored_otherwise_takes_the_training_that_is_there(tmp_path):
    first = payload_of(tmp_path)
    execute(first, LocalSession())
    trained = harness.store.load(tmp_path)
    assert seconds_of(trained, first.key)["method"] > 0
    for words in (["scales=1,1.5", "flip=max", "fusion=sum"], ["scales=original"]):
        other = payload_of(tmp_path, *words)
        assert other.key != first.key
        execute(other, LocalSession())
        results = harness.store.load(tmp_path)
        seconds = seconds_of(results, other.key)
        assert {name: seconds[name] for name in CACHED} == CACHED, words
        assert seconds["reused"] > 0, "the training that the first run paid for"
        steps = [results.steps.filter(pl.col("key") == p.key).drop("key") for p in (first, other)]
        assert steps[0].height > 0
        assert steps[0].equals(steps[1])
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", ["a flipped bit", "no bytes"])
def test_damaged_cached_weights_are_made_again(tmp_path, capsys, damage):
    """Another run that shares the training, and a retry of the same: the numbers of an undisturbed store."""
    other = payload_of(tmp_path, "scales=1,1.5")
    assert execute(payload_of(tmp_path), LocalSession()).status == "done"
    (weights,) = tmp_path.glob("cache/*/weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content if damage == "a flipped bit" else b"")
    assert execute(other, LocalSession()).status == "done"
    assert f"{weights} is not what was written: stage train is made again" in capsys.readouterr().out
    assert execute(payload_of(tmp_path), LocalSession()).status == "done"
    assert "made again" not in capsys.readouterr().out
    for name in ("", "scales=1,1.5"):
        more = [name] if name else []
        clean = payload_of(tmp_path / "clean", *more)
        execute(clean, LocalSession())
        results = [harness.store.load(store) for store in (tmp_path, tmp_path / "clean")]
        assert harness.store.digest(results[0], clean.key) == harness.store.digest(results[1], clean.key)


def test_training_reads_all_but_scoring(tmp_path):
    payload = payload_of(tmp_path)
    context = engine.open_context(payload, LocalSession(), Phases())
    versions = {"scoring": 1, "loop": 1}

    def key(versions=versions, **changes):
        other = dataclasses.replace(context, run=dataclasses.replace(context.run, **changes))
        return stage_key(other.recipe.stage("train"), other, versions)

    usual = key()
    scoring = {"scales": (2.0,), "flip": True, "fusion": "sum", "crf": "toco", "split": "val",
               "scoring": {"size": "original"}, "cam_threshold": 0.3}  # fmt: skip
    for name, value in scoring.items():
        assert key(**{name: value}) == usual, name
    assert set(scoring) == SCORING_FIELDS
    assert key(versions={"scoring": 2, "loop": 1}) == usual
    assert key(versions={"scoring": 1, "loop": 2}) != usual
    knobs = dict(context.run.knobs)
    training = {"crop": 64, "seed": 1, "precision": "bf16", "group": 4, "labels": "masks", "iterations": 5,
                "knobs": {**knobs, "cam_scales": [1.0, 2.0]}}  # fmt: skip
    for name, value in training.items():
        assert key(**{name: value}) != usual, name


def test_what_one_run_keeps_another_does_not_drop(tmp_path):
    kept, dropping = payload_of(tmp_path), payload_of(tmp_path, "keep=none", "scales=2")
    execute(kept, LocalSession())
    execute(dropping, LocalSession())
    (row,) = harness.store.load(tmp_path).artifacts.filter(pl.col("kind") == "weights").to_dicts()
    assert row["key"] == kept.key
    assert (tmp_path / row["path"]).is_file()
    assert [f.name for f in tmp_path.glob("cache/*/weights.safetensors")] == ["weights.safetensors"]
    execute(payload_of(tmp_path, "keep=maps", "seed=1"), LocalSession())
    assert len(list(tmp_path.glob("cache/*/weights.safetensors"))) == 1, "keep=maps names no weights"
    assert len(list(tmp_path.glob("cache/*/files"))) == 1
    results = harness.store.load(tmp_path)
    assert set(results.artifacts.filter(pl.col("kind") == "weights")["key"]) == {kept.key}


@pytest.mark.parametrize(("precision", "expected"), [("bf16", {True}), ("fp32", {False})])
def test_maps_scores_and_pictures_have_the_precision_of_the_run(tmp_path, monkeypatch, precision, expected):
    payload = payload_of(tmp_path, f"precision={precision}", "scales=1,1.5")
    network = network_of(payload)
    real, seen = network.predict, []

    def predict(self, images, tags=None, *, want, weights="student"):
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return real(self, images, tags, want=want, weights=weights)

    monkeypatch.setattr(network, "predict", predict)
    execute(payload, LocalSession())
    # 3 + 4 images as maps (one chunk), the segmenter on val and on test twice, four pictures.
    assert len(seen) == 1 + 1 + 2 + 4 * 3
    assert set(seen) == {(one, False) for one in expected}
    assert "precision" in IMAGE_FIELDS


def network_of(payload):
    context = engine.open_context(payload, LocalSession(), Phases())
    return type(context.build(context.recipe.stage("train")))


def killed_at(monkeypatch, step, error):
    """The run dies at this step of training, its last heartbeat 100 seconds after its start."""
    real = Context.report_progress

    def report_progress(self, stage, at, total, losses=None):
        self.heartbeat._last = None
        if stage == "train" and at == step:
            now = self.heartbeat._clock
            self.heartbeat._clock = lambda: now() + 100.0
            real(self, stage, at, total, losses)
            raise error
        real(self, stage, at, total, losses)

    monkeypatch.setattr(Context, "report_progress", report_progress)


def test_a_resumed_run_costs_what_its_attempts_cost_together(tmp_path, monkeypatch):
    payload = payload_of(tmp_path, "checkpoint_every=2")
    with monkeypatch.context() as dying:
        killed_at(dying, 3, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            execute(payload, LocalSession())
    with monkeypatch.context() as dying:
        killed_at(dying, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            execute(payload, LocalSession())
    execute(payload, LocalSession())
    results = harness.store.load(tmp_path)
    (row,) = results.runs.to_dicts()
    seconds = seconds_of(results, payload.key)
    assert 200 < seconds["earlier"] < 230
    assert row["steps_lost"] == 2, "stopped in step 4, resumed from the checkpoint of 2"
    assert row["gpu_seconds"] == 0.0


def test_the_first_attempt_of_a_retry_after_running_out_of_memory_counts(tmp_path, monkeypatch):
    payload = payload_of(tmp_path)
    killed_at(monkeypatch, 2, MemoryError("too large"))
    real, attempts = engine.execute, []

    def once(payload, session):
        attempts.append(payload.machine.low_memory)
        if len(attempts) == 2:
            monkeypatch.undo()
        return real(payload, session)

    outcome = attempt(once, payload, LocalSession())
    assert attempts == [False, True]
    results = harness.store.load(tmp_path)
    (row,) = results.runs.to_dicts()
    said = "ran with groups of 1 for want of memory, so it is not ranked; with group=1 it would be"
    assert (row["error_class"], row["error_message"]) == ("oom", said)
    assert (outcome.status, outcome.error_class, outcome.error_message) == ("done", "oom", said)
    assert row["steps_lost"] == 2
    assert 100 < seconds_of(results, payload.key)["earlier"] < 115


def test_the_best_rung_stays_beside_the_final_weights(tmp_path):
    payload, told = payload_of(tmp_path), []
    session = LocalSession(rungs=(0.5, 0.75), on_report=lambda reached, value: told.append((reached, value)) or True)
    execute(payload, session)
    (path,) = tmp_path.glob("cache/*/best.safetensors")
    assert [reached for reached, _ in told] == [0.5, 0.75]
    best = max(value for _, value in told)
    step = {0.5: 2, 0.75: 3}[next(reached for reached, value in told if value == best)]
    meta = best_meta(path)
    assert (meta["objective"], meta["step"]) == (repr(best), str(step))


def test_maps_that_do_not_fit_on_the_disk_are_counted_and_the_same_command_goes_on(tmp_path, monkeypatch):
    """`write-cams` meets a full disk at its fourth file: no half file, what is missing, and equal bytes afterwards."""
    payload, real, written = payload_of(tmp_path, "keep=maps"), per_image.write_bytes, []

    def full(path, content, *, sync=True):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(path, content, sync=sync)

    monkeypatch.setattr(per_image, "write_bytes", full)
    with pytest.raises(
        StoreError, match=r"could not be written: the disk is full. Stage write-cams has about 12 files of"
    ):
        execute(payload, LocalSession())
    assert sorted(p.name for p in written[0].parent.iterdir()) == sorted(p.name for p in written)
    monkeypatch.setattr(per_image, "write_bytes", real)
    execute(payload, LocalSession())
    undisturbed = payload_of(tmp_path / "other", "keep=maps")
    execute(undisturbed, LocalSession())
    first, second = (harness.store.load(store) for store in (tmp_path, tmp_path / "other"))
    assert harness.store.digest(first) == harness.store.digest(second)
