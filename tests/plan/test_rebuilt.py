"""Optuna studies made again from rows of the store."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from harness.plan.rebuilt import rebuilt, rebuilt_studies
from harness.store import SCHEMAS, Results


def table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    columns = SCHEMAS[name]
    return pl.DataFrame([{c: r.get(c) for c in columns} for r in rows], schema=dict(columns))


BEGUN = "2026-01-02T03:04:05+00:00"


def run(key: str, method: str = "unknown", started: str = BEGUN, **knobs: Any) -> dict[str, Any]:
    spent = json.dumps({"method": 60.0, "reached": 0.5})
    return {"key": key, "method": method, "status": "done", "seed": 0, "iterations": 200, "started": started,
            "config": json.dumps({"knobs": knobs}), "seconds": spent}  # fmt: skip


def trial(key: str, number: int, status: str = "done", reached: float = 1.0, objective: float | None = 0.5,
          role: str = "trial") -> dict[str, Any]:  # fmt: skip
    return {"sweep": "w", "study": "s", "trial": number, "key": key, "role": role, "protocol": "held-out",
            "status": status, "reached": reached, "objective": objective}  # fmt: skip


RUNS = [
    run("a", ratio=0.2, depth=3, norm="x", same=1), run("b", ratio=0.6, depth=5, norm="y", same=1),
    run("c", ratio=0.4, depth=3, norm="x", same=1), run("d", ratio=0.3, depth=4, norm="x", same=1),
]  # fmt: skip
TRIALS = [
    trial("a", 0, objective=0.5), trial("b", 1, "pruned", 0.5, 0.3), trial("c", 2, "failed", 0.1, None),
    trial("d", 3, objective=0.7), trial("d", 3, objective=0.7, role="final"),
]  # fmt: skip
STEPS = [
    {"key": "b", "stage": "rung", "step": 50, "name": "objective", "value": 0.2},
    {"key": "b", "stage": "train", "step": 50, "name": "cls", "value": 9.0},
]


def results(runs: list[dict[str, Any]], trials: list[dict[str, Any]]) -> Results:
    return Results(runs=table("runs", runs), trials=table("trials", trials), steps=table("steps", STEPS))


def test_states_values_rungs_and_times_come_back() -> None:
    (study,) = rebuilt_studies(results(RUNS, TRIALS))
    assert (study.name, study.method, study.protocol, study.sweeps) == ("s", "unknown", "held-out", ("w",))
    assert [t.state for t in study.trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]  # fmt: skip
    assert [t.value for t in study.trials] == [0.5, None, None, 0.7]
    assert study.trials[1].intermediate_values == {25: 0.2, 50: 0.3}
    assert study.trials[3].user_attrs == {"trial": 3, "key": "d", "seed": 0, "status": "done"}
    assert str(study.trials[0].datetime_start) == "2026-01-02 03:04:05"
    assert (study.trials[0].datetime_complete - study.trials[0].datetime_start).total_seconds() == 60.0
    assert study.study.best_trial.number == 3


def test_knobs_that_never_changed_are_no_parameters() -> None:
    (study,) = rebuilt_studies(results(RUNS, TRIALS))
    assert study.trials[0].params == {"ratio": 0.2, "depth": 3, "norm": "x"}
    assert study.trials[0].distributions == {
        "ratio": FloatDistribution(0.2, 0.6),
        "depth": IntDistribution(3, 5),
        "norm": CategoricalDistribution(["x", "y"]),
    }


def test_a_method_of_ours_has_its_own_space_where_all_values_lie_in_it() -> None:
    inside = [run("a", "full", lr_factor=1.0), run("b", "full", lr_factor=2.0)]
    (study,) = rebuilt_studies(results(inside, TRIALS[:2]))
    wide = study.trials[0].distributions["lr_factor"]
    assert isinstance(wide, FloatDistribution)
    assert wide.low < 1.0 < 2.0 < wide.high
    outside = [run("a", "full", lr_factor=1.0), run("b", "full", lr_factor=1e9)]
    (study,) = rebuilt_studies(results(outside, TRIALS[:2]))
    assert study.trials[0].distributions == {"lr_factor": FloatDistribution(1.0, 1e9)}


def test_a_trial_that_ran_twice_stands_for_its_newest_run() -> None:
    later = run("e", ratio=0.9, depth=3, norm="x", same=1, started="2026-02-01T00:00:00+00:00")
    (study,) = rebuilt_studies(results([*RUNS, later], [*TRIALS, trial("e", 0, objective=0.9)]))
    assert study.keys == ("e", "b", "c", "d")


def test_nothing_searched_is_no_study() -> None:
    assert rebuilt_studies(results([run("a", same=1), run("b", same=1)], TRIALS[:2])) == []
    assert rebuilt(table("trials", []), {}, table("steps", [])) is None
