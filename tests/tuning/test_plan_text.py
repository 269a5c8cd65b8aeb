"""What a plan says of itself before it runs: time and place of runs like those in the store."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.plan.plan import Plan, make_plan
from harness.tuning.describe import seconds_per_run

SMALL = ["methods=cam", "data.n_train=16", "data.n_val=8", "data.n_test=8", "iterations=10", "tier=lab"]


@pytest.fixture(scope="module")
def made() -> Plan:
    return make_plan(parse(SMALL, Words, "sweep", registry().names()))


def stored(made: Plan, seconds: float, **changes: Any) -> dict[str, Any]:
    """A finished run like those of the plan, but for `changes`."""
    payload = made.resolve(made.studies[0].study, {}, 0)
    row = payload.row("done", seconds=json.dumps({"method": seconds, "train_all_attempts": 999.0}))
    return {**row, **changes}


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
    usual = 560 * 16 * 96**2
    assert seconds_per_run(made.studies[0], nothing_like_it) == pytest.approx(
        600 * run.total * run.batch * run.crop**2 / usual
    ), "the bound of the tier, for the pixels of this run"
