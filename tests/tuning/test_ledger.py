"""What the driver takes from a store and what it leaves there, without running anything."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ledger_toys import SMALL, ledger, plan, resolved, write_done

from harness import train
from harness.cli.parsing import main
from harness.engine.heartbeat import FILE, Heartbeat, read_heartbeats
from harness.plan.studies import Outcome
from harness.scoring.metrics import miou
from harness.store import load
from harness.store.maintenance import compact
from harness.store.outlines import sweeps
from harness.tuning.asha import Asha
from harness.tuning.ledger import Ledger
from harness.tuning.points import write_point
from harness.tuning.scheduler import Job, Scheduler


def test_a_known_run_is_scored_on_the_tuning_split_of_its_study(tmp_path: Path) -> None:
    key = write_done(ledger(tmp_path), {"val": 6, "test": 9})
    assert ledger(tmp_path).known(key) == Outcome("done", 0.6)
    assert ledger(tmp_path, "protocol=oracle").known(key) == Outcome("done", 0.9)


def test_a_run_without_the_tuning_split_is_made_again_instead_of_being_chosen_by_its_test_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its key is that of an oracle run: protocols are no part of a key."""
    key = write_done(ledger(tmp_path, "protocol=oracle"), {"test": 9})
    assert ledger(tmp_path, "protocol=oracle").known(key) == Outcome("done", 0.9)
    held_out = ledger(tmp_path)
    assert held_out.known(key) is None
    assert held_out.known(key) is None
    told = capsys.readouterr().out
    assert told == f"cam seed 0, run {key}, is made again: its segmentation was not scored on val\n"


def test_an_oracle_run_is_scored_again_for_held_out_from_its_weights(tmp_path: Path) -> None:
    words = ["method=cam", *SMALL, "ray=off", f"store={tmp_path}"]
    assert main(train.run, [*words, "protocol=oracle"]) == 0
    assert set(load(tmp_path).evals["split"]) == {"test"}
    weights = next(tmp_path.glob("cache/*/weights.safetensors")).stat().st_mtime_ns
    compact(tmp_path)
    before = load(tmp_path)
    assert main(train.run, words) == 0
    results = load(tmp_path)
    assert set(results.evals["split"]) == {"val", "test"}
    assert set(before.evals["eval"]) <= set(results.evals["eval"])
    assert results.evals["eval"].n_unique() == results.evals.height
    assert next(tmp_path.glob("cache/*/weights.safetensors")).stat().st_mtime_ns == weights, "it was trained again"
    chosen = results.trials.filter(pl.col("protocol") == "held-out", pl.col("role") == "trial")
    val = results.evals.filter(
        pl.col("split") == "val", pl.col("target") == "segmentation", pl.col("weights") == "student"
    )
    assert chosen["objective"].to_list() == [miou(results.counts.filter(pl.col("eval") == val["eval"][0]))[0]]


@pytest.mark.parametrize("table", ["evals", "counts"])
@pytest.mark.parametrize("damage", ["missing", "garbage", "cut"])
def test_a_run_whose_scores_are_lost_is_made_again_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, damage: str
) -> None:
    one = ledger(tmp_path)
    key = write_done(one, {"val": 6, "test": 9})
    file = one.store.path(table, key)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"no parquet" if damage == "garbage" else file.read_bytes()[:-9])
    assert ledger(tmp_path).known(key) is None
    told = capsys.readouterr().out
    assert f"run {key}, is made again" in told
    assert f"{table}/{key}" in told


def test_of_a_merged_file_that_is_damaged_all_runs_are_made_again(tmp_path: Path) -> None:
    one = ledger(tmp_path)
    keys = [write_done(one, {"val": n, "test": 9}, {"lr": n / 1000}) for n in (1, 2)]
    compact(tmp_path)
    assert [ledger(tmp_path).known(k) for k in keys] == [Outcome("done", 0.1), Outcome("done", 0.2)]
    next(tmp_path.glob("counts/compact-*.parquet")).write_bytes(b"no parquet")
    again = ledger(tmp_path)
    with pytest.warns(UserWarning, match="is damaged"):
        assert again.known(keys[0]) is None
    assert again.known(keys[1]) is None
    assert not again.store.has("counts", keys[0]), "its new counts could not be written"


def with_all_tables(of: Ledger, key: str) -> None:
    """What a run writes beside its scores."""
    of.store.write(
        "curves",
        key,
        pl.DataFrame({"eval": [f"{key}-val"], "class": [0], "threshold": [0.5], "tp": [1], "fp": [0], "fn": [0]}),
    )
    of.store.write(
        "steps", key, pl.DataFrame({"key": [key], "stage": ["train"], "step": [0], "name": ["cls"], "value": [1.0]})
    )
    of.store.write(
        "artifacts", key, pl.DataFrame({"key": [key], "kind": ["weights"], "path": ["cache/a/w"], "digest": ["d"]})
    )


@pytest.mark.parametrize("table", ["params", "curves", "steps", "artifacts"])
@pytest.mark.parametrize("way", ["in place", "set aside", "merged"])
def test_a_done_run_that_a_damaged_file_robbed_is_made_again_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, way: str
) -> None:
    one = ledger(tmp_path)
    key, other = (write_done(one, {"val": n, "test": 9}, {"lr": n / 1000}) for n in (6, 7))
    for name in (key, other):
        with_all_tables(one, name)
    assert ledger(tmp_path).known(key) == Outcome("done", 0.6)
    if way == "merged":
        compact(tmp_path)
    file = next(tmp_path.glob(f"{table}/compact-*.parquet")) if way == "merged" else one.store.path(table, key)
    file.write_bytes(file.read_bytes()[:-9])
    if way != "in place":
        with pytest.warns(UserWarning, match="is damaged"):
            load(tmp_path)
    again = ledger(tmp_path)
    assert again.known(key) is None
    assert f"run {key}, is made again: damaged files took its {table}" in capsys.readouterr().out
    assert (again.known(other) is None) == (way == "merged")
    # Made again, and without rows in that table, as another method may leave it: nothing is made a third time.
    payload = resolved(again, {"lr": 6 / 1000})
    again.store.write("runs", key, pl.DataFrame([payload.row("done")]), again=True)
    again.store.path(table, key).unlink(missing_ok=True)
    assert ledger(tmp_path).known(key) == Outcome("done", 0.6)


def test_a_run_that_never_had_curves_is_whole(tmp_path: Path) -> None:
    key = write_done(ledger(tmp_path), {"val": 6, "test": 9})
    assert ledger(tmp_path).known(key) == Outcome("done", 0.6)


@pytest.mark.parametrize("table", ["runs", "counts", "steps"])
def test_a_file_of_a_newer_harness_blocks_one_row(tmp_path: Path, table: str) -> None:
    one = ledger(tmp_path)
    key, other = (write_done(one, {"val": n, "test": 9}, {"lr": n / 1000}) for n in (6, 7))
    with_all_tables(one, key)
    path = one.store.path(table, key)
    pl.read_parquet(path, glob=False).write_parquet(path, metadata={"schema_version": "99"})
    again = ledger(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        blocked = again.known(key)
        assert again.known(other) == Outcome("done", 0.7)
    assert (blocked.status, blocked.error_class) == ("failed", "bad_input")
    assert f"{path} has schema version 99" in blocked.error_message


def test_the_plan_in_the_store_holds_no_password(tmp_path: Path) -> None:
    one = ledger(tmp_path, "mlflow=http://user:hush@host:5000")
    one.write_plan()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hush" not in path.read_bytes(), path
    assert sweeps(tmp_path)[0]["words"][0]["mlflow"] == "http://***@host:5000"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"sweep": "s"}', "[" * 100_000])
def test_an_outline_that_is_none_blocks_no_other(tmp_path: Path, text: str) -> None:
    one = ledger(tmp_path)
    one.write_plan()
    (tmp_path / "sweeps" / "x.json").write_text(text)
    with pytest.warns(UserWarning, match=r"x\.json is no plan of a sweep"):
        assert [outline["sweep"] for outline in sweeps(tmp_path)] == [one.plan.sweep]


def test_failures_of_another_class_or_message_are_written_and_equal_ones_are_not(tmp_path: Path) -> None:
    one = ledger(tmp_path)
    study = one.plan.studies[0].study
    key = resolved(one).key

    def rows() -> list[tuple[str, str]]:
        return sorted(load(tmp_path).runs.select("error_class", "error_message").iter_rows())

    one.record(study, 0, "trial", 0, key, Outcome("failed", None, 0.0, "preempted", "taken"))
    one.record(study, 0, "trial", 0, key, Outcome("failed", None, 0.0, "preempted", "taken"))
    assert rows() == [("preempted", "taken")]
    two = ledger(tmp_path)
    resolved(two)
    two.record(study, 0, "trial", 0, key, Outcome("failed", None, 0.0, "bug", "broken"))
    assert rows() == [("bug", "broken"), ("preempted", "taken")]
    assert ledger(tmp_path).known(key) == Outcome("failed", None, 0.0, "bug", "broken")


@pytest.mark.parametrize("status", ["failed", "pruned"])
def test_a_run_that_ended_is_no_longer_in_progress_and_its_time_is_booked(tmp_path: Path, status: Any) -> None:
    one = ledger(tmp_path, "workers=2", "ray=off")
    planned = one.plan.studies[0]
    object.__setattr__(planned.study, "gpus", 0.5)
    key = resolved(one).key
    times = iter([100.0, 100.0, 160.0])
    Heartbeat(one.store.work(key), clock=lambda: next(times)).write(key=key)
    path = one.store.work(key) / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "updated": 160.0}))
    assert len(read_heartbeats(tmp_path)) == 1
    one.record(planned.study, 1, "trial", 0, key, Outcome(status, 0.2, 0.5))
    (row,) = load(tmp_path).runs.to_dicts()
    assert (row["device"], row["world_size"], row["gpu_seconds"]) == ("cuda", 2, 60.0)
    assert read_heartbeats(tmp_path) == []
    assert not one.store.work(key).exists()


def test_without_a_gpu_no_gpu_hours(tmp_path: Path) -> None:
    one = ledger(tmp_path)
    key = resolved(one).key
    one.record(one.plan.studies[0].study, 1, "trial", 0, key, Outcome("pruned", 0.2, 0.5))
    (row,) = load(tmp_path).runs.to_dicts()
    assert (row["device"], row["world_size"], row["gpu_seconds"]) == ("cpu", 1, 0.0)


def test_closed_trials_whose_key_has_changed_teach_nothing(tmp_path: Path) -> None:
    one = ledger(tmp_path, "trials=6")
    study = one.plan.studies[0].study
    good = write_done(one, {"val": 6, "test": 9})
    one.record(study, 0, "trial", 0, good, Outcome("done", 0.6))
    row = load(tmp_path).runs.to_dicts()[0]
    one.store.write("runs", "stale", pl.DataFrame([{**row, "key": "stale"}]))
    one.record(study, 1, "trial", 0, "stale", Outcome("done", 0.99))
    found = ledger(tmp_path, "trials=6").closed_trials(study)
    assert [(p.trial, p.key, p.outcome.objective) for p in found] == [(0, good, 0.6)]


def test_a_point_of_an_interrupted_trial_whose_key_has_changed_is_dropped(tmp_path: Path) -> None:
    one = ledger(tmp_path, "trials=6")
    study = one.plan.studies[0].study
    assert study.space is not None
    other, name = study.preset_knobs, "w_seg"
    assert name in study.space.knobs
    kept = {**other, name: other[name] * 0.9}
    write_point(tmp_path, one.resolve(study, kept, 0).key, study.id, 1, kept)
    write_point(tmp_path, "0" * 20, study.id, 2, {**other, name: other[name] * 0.8})
    scheduler = Scheduler([study], one, store_root=tmp_path)
    jobs = [j for j in (scheduler.next() for _ in range(3)) if isinstance(j, Job)]
    drawn = {j.planned.trial: j.planned.knobs[name] for j in jobs}
    assert drawn[1] == kept[name]
    assert drawn[2] != other[name] * 0.8


def test_scores_at_rungs_come_back_also_from_merged_files(tmp_path: Path) -> None:
    one = ledger(tmp_path, "trials=6")
    study = one.plan.studies[0].study
    first = Asha(study.first_rung).rungs[0]
    keys = [write_done(one, {"val": n, "test": 9}, {"w_seg": n / 10}) for n in (1, 2)]
    for key, score in zip(keys, (0.25, 0.5), strict=True):
        one.rung(study, key, first + 1e-12, score)
    steps = load(tmp_path).steps
    assert steps.select("stage", "step", "name").unique().rows() == [("rung", round(first * 12), "objective")]
    compact(tmp_path)
    again = ledger(tmp_path, "trials=6")
    assert [again.rungs(study, key) for key in (*keys, "other")] == [{first: 0.25}, {first: 0.5}, {}]


def test_trials_are_read_once_however_many_are_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ledger(tmp_path, "trials=6")
    study = one.plan.studies[0].study
    keys = []
    for trial in (1, 2, 3):
        key = resolved(one, {"lr": trial / 1000}).key
        one.record(study, trial, "trial", 0, key, Outcome("pruned", trial / 10, 0.25))
        keys.append(key)
    seen = []
    monkeypatch.setattr("harness.tuning.ledger.load", lambda root, tables: seen.append(tables) or load(root, tables))
    again = ledger(tmp_path, "trials=6")
    assert [again.known(k) for k in keys] == [Outcome("pruned", t / 10, 0.25) for t in (1, 2, 3)]
    assert sorted(seen) == [["runs"], ["trials"]]


def test_a_single_run_belongs_to_no_study_of_a_sweep(tmp_path: Path) -> None:
    swept = plan(tmp_path, "trials=1", "seeds=1", "protocol=fixed")
    alone = plan(tmp_path, "protocol=fixed", single=True)
    (a,), (b,) = swept.studies, alone.studies
    assert swept.resolve(a.study, {}, 0).key == alone.resolve(b.study, {}, 0).key
    assert alone.sweep.startswith("train-")
    assert b.study.id.startswith("cam-tags-train-")
    assert (b.study.trials, b.study.seeds, b.study.space) == (1, (0,), None)
    assert not {swept.sweep, a.study.id} & {alone.sweep, b.study.id}
