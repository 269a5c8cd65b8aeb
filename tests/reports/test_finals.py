"""Which runs stand for a study: the finals of the chosen config only, one a seed, all by one code on one data set."""

from __future__ import annotations

import json

import pytest
from fixture_store import ToyStore, swapped_miou

from harness.store import load
from harness.store.pretraining import named
from reports.format.table import Score
from reports.rows.row import Filters, Row
from reports.rows.rows import rows_of
from reports.rows.studies import hours, preference
from reports.sections.leaderboard import build


def knobs(lr: float, **more: object) -> str:
    return json.dumps({"knobs": {"lr": lr}, "class_names": ["background", "disc"], **more})


def tried(toy: ToyStore, key: str, trial: int, lr: float, objective: float | None, *, seed: int = 0,
          roles: tuple[str, ...] = ("trial",), swaps: int = 10, **run: object) -> str:  # fmt: skip
    """A run of study `s` with a learning rate, in these roles."""
    toy.run(key, "cam", study="s", trial=trial, seed=seed, config=knobs(lr, seed=seed), **run)
    for role in roles:
        toy.trial(key, "s", trial=trial, role=role, objective=objective)
    toy.evaluate(key, "segmentation", swaps)
    return key


def only_row(toy: ToyStore) -> Row:
    (row,) = rows_of(load(toy.root), Filters())
    return row


def test_a_final_of_a_config_that_was_not_chosen_is_not_averaged_in(toy: ToyStore) -> None:
    # A single run of trial 0 leaves a final in the study whose search then prefers trial 1.
    tried(toy, "t0", 0, 0.1, 0.4, roles=("trial", "final"), swaps=20)
    tried(toy, "t1", 1, 0.2, 0.6, roles=("trial", "final"), swaps=8)
    tried(toy, "t1s1", 1, 0.2, 0.5, seed=1, roles=("final",), swaps=6)
    row = only_row(toy)
    assert (row.keys, row.seeds, row.trials) == (("t1", "t1s1"), (0, 1), 2)
    cell = build(load(toy.root)).table.sections[0].rows[0]["segmentation"]
    assert isinstance(cell, Score)
    assert cell.value == pytest.approx((swapped_miou(8) + swapped_miou(6)) / 2)


def test_seeds_from_before_and_after_a_knob_was_added_are_one_row(toy: ToyStore) -> None:
    for seed, more in enumerate(({}, {"device_views": False}, {"device_views": True})):
        said = json.dumps({"knobs": {"lr": 0.1, **more}, "class_names": ["background", "disc"], "seed": seed})
        toy.run(f"s{seed}", "cam", study="s", seed=seed, config=said)
        toy.evaluate(f"s{seed}", "segmentation", 10)
        toy.trial(f"s{seed}", "s", role="final", objective=0.4)
    toy.trial("s0", "s", role="trial", objective=0.4)
    assert (only_row(toy).keys, only_row(toy).seeds) == (("s0", "s1"), (0, 1))


def test_a_trial_that_won_on_a_rerun_stands_alone_until_its_finals_are_there(toy: ToyStore) -> None:
    for seed in range(2):
        tried(toy, f"t0s{seed}", 0, 0.1, 0.4, seed=seed, roles=("trial", "final") if seed == 0 else ("final",))
    toy.trial("t1", "s", trial=1, status="failed", reached=0.2, objective=None, sweep="5weep")
    toy.run("t1", "cam", study="s", trial=1, config=knobs(0.2))
    toy.trial("t1", "s", trial=1, objective=0.7, role="trial", sweep="later")
    toy.trial("t0s0", "s", trial=0, objective=0.4, sweep="later")
    for seed in range(2):
        toy.trial(f"t0s{seed}", "s", role="final", sweep="later")
    toy.evaluate("t1", "segmentation", 4)
    rows = {r.keys for r in rows_of(load(toy.root), Filters(sweep="later"))}
    assert rows == {("t1",)}


def test_of_two_runs_with_one_seed_the_newest_counts(toy: ToyStore) -> None:
    tried(toy, "old", 0, 0.1, 0.4, roles=("trial", "final"), swaps=20, started="2026-01-01T00:00:00+00:00")
    tried(toy, "new", 0, 0.1, 0.4, roles=("final",), swaps=10, started="2026-01-05T00:00:00+00:00")
    assert (only_row(toy).keys, only_row(toy).seeds) == (("new",), (0,))


def test_the_chosen_trial_is_the_one_that_tuning_takes(toy: ToyStore) -> None:
    assert max([(0.4, 0), (0.6, 1), (0.6, 2), (None, 3)], key=lambda t: preference(*t)) == (0.6, 1)
    assert max([(None, 0), (0.0, 1), (float("nan"), 2)], key=lambda t: preference(*t)) == (None, 0)
    tried(toy, "t0", 0, 0.1, None)
    tried(toy, "t1", 1, 0.2, 0.0)
    assert only_row(toy).keys == ("t0",)


@pytest.mark.parametrize("other", [
    {"split_fingerprints": json.dumps({"train": "b", "report": "r"})}, {"pretraining": "dino.safetensors"},
])  # fmt: skip
def test_runs_of_other_data_or_weights_under_one_study_are_two_rows(toy: ToyStore, other: dict[str, str]) -> None:
    base = {"split_fingerprints": json.dumps({"train": "a", "report": "r"})}
    for name, more in (("a", base), ("b", base | other)):
        for trial in range(2):
            lr = 0.1 + trial
            tried(toy, f"{name}{trial}", trial, lr, 0.4 + trial / 10, swaps=10 + trial + 4 * (name == "b"), **more)
    rows = rows_of(load(toy.root), Filters())
    assert sorted(r.keys for r in rows) == [("a1",), ("b1",)]
    assert [sorted(r.spent) for r in sorted(rows, key=lambda r: r.keys)] == [["a0", "a1"], ["b0", "b1"]]
    # Each row's choices are among its own trials: numbers 0 and 1 exist twice.
    sections = [s for s in build(load(toy.root), thresholds=True).table.sections if s.kind == "choices"]
    lines = sorted(
        (line["held_out"].value, line["oracle"].value)  # type: ignore[union-attr]
        for s in sections
        for line in s.rows
    )
    assert lines == [pytest.approx((swapped_miou(n + 1), swapped_miou(n))) for n in (14, 10)]


def test_a_name_and_the_json_that_it_stands_for_are_the_same_weights(toy: ToyStore) -> None:
    name = "timm deit_tiny_patch16_224.fb_in1k"
    for seed, text in enumerate((name, named(name).stored())):
        tried(toy, f"s{seed}", 0, 0.1, 0.4, roles=("final",), swaps=10, seed=seed, pretraining=text)
    (row,) = rows_of(load(toy.root), Filters())
    assert row.seeds == (0, 1)
    assert row.pretraining.kind == ("ImageNet-1k", "labels", "none")


def test_single_runs_on_other_data_are_rows_of_their_own(toy: ToyStore) -> None:
    for seed, data in enumerate("ab"):
        toy.run(data, "cam", seed=seed, split_fingerprints=json.dumps({"train": data, "report": data}))
        toy.evaluate(data, "segmentation", 10)
    assert sorted(r.keys for r in rows_of(load(toy.root), Filters())) == [("a",), ("b",)]


def test_gpu_seconds_count_whatever_the_device_is_called() -> None:
    seconds = json.dumps({"reached": 0.4, "unfinished": 1800.0})
    machine = {"device": "cpu", "world_size": 1, "threads": 2}
    stopped = {"key": "a", "gpu_seconds": 1800.0, "seconds": seconds, **machine}
    done = {**stopped, "device": "NVIDIA H200", "gpu_seconds": 900.0}
    on_cpu = {**stopped, "gpu_seconds": 0.0, "seconds": json.dumps({"reached": 0.4, "unfinished": 3600.0})}
    assert hours([stopped, done, on_cpu]) == (0.75, 2.0)
