"""What a plan says of itself before it runs: time and place of runs like those in the store."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from harness.api.registry import registry
from harness.api.spec import resolve
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.plan.plan import Plan, make_plan
from harness.tuning.describe import runs_left, runs_of, seconds_per_run, time_text

SMALL = ["methods=cam", "data.n_train=16", "data.n_val=8", "data.n_test=8", "iterations=10", "tier=lab"]


@pytest.fixture(scope="module")
def made() -> Plan:
    return make_plan(parse(SMALL, Words, "sweep", registry().names()))


def stored(made: Plan, seconds: float, **changes: Any) -> dict[str, Any]:
    """A finished run like those of the plan, but for `changes`."""
    payload = made.resolve(made.studies[0].study, {}, 0)
    row = payload.row("done", seconds=json.dumps({"method": seconds, "train_all_attempts": 999.0}))
    return {**row, **changes}


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ([(1, 30.0, 2)], "30 s"),
        ([(2, 30.0, 2)], "30 s with 2 runs at once"),
        ([(3, 30.0, 2)], "1 min 0 s with 2 runs at once"),
        ([(1, 100.0, 2), (4, 10.0, 2)], "1 min 40 s with 2 runs at once"),
        ([(1, 23520.0, 1), (0, 9.0, 4)], "6 h 32 min"),
    ],
)
def test_the_time_of_runs_together(lengths: list[tuple[int, float, int]], text: str) -> None:
    assert time_text(lengths) == text


def test_what_the_store_has_is_not_estimated_again(made: Plan) -> None:
    planned = made.studies[0]
    assert runs_of(planned) == planned.study.trials == 2
    row = {"study": planned.study.id, "trial": 0, "role": "trial", "status": "done", "key": "a"}
    rows = [row, {**row, "trial": 1, "status": "failed", "key": "b"}, {**row, "study": "other", "trial": 1}]
    assert runs_left(planned, pl.DataFrame(rows), {"a"}) == 1
    assert runs_left(planned, pl.DataFrame([*rows, {**row, "trial": 1, "status": "pruned"}]), {"a"}) == 0
    assert runs_left(planned, pl.DataFrame([{**row, "study": "other"}]), {"a"}) == 2


def test_the_time_of_a_run_is_that_of_runs_like_it(made: Plan) -> None:
    rows = [stored(made, 30.0), stored(made, 50.0)]
    rows += [
        stored(made, 9000.0, **other)
        for other in (
            {"dataset": "voc"},
            {"device": "NVIDIA H100"},
            {"precision": "bf16"},
            {"world_size": 4},
            {"backbone": "resnet50"},
            {"status": "failed"},
        )
    ]
    assert seconds_per_run(made.studies[0], pl.DataFrame(rows)) == pytest.approx(40.0)
    run, nothing_like_it = made.studies[0].run, pl.DataFrame(rows[2:])
    preset = resolve(registry().spec("cam").preset)("shapes", "lab", "default")
    usual = preset.iterations * 16 * 96**2
    assert seconds_per_run(made.studies[0], nothing_like_it) == pytest.approx(
        600 * run.total * run.batch * run.crop**2 / usual
    ), "the bound of the tier, for the pixels of this run"
