"""Columns of evals: what tells one from all others."""

from __future__ import annotations

import pytest

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.engine.inference.counting import Target
from harness.engine.inference.evals import eval_columns
from harness.plan.plan import make_plan

SMALL = ["data=shapes", "data.n_train=8", "data.n_val=4", "data.n_test=4", "crop=48", "gpus=0"]


@pytest.mark.parametrize(
    ("method", "knob", "scales"),
    [
        ("cam", "cam.cam_scales", "1,0.5"),
        # FSAE trains its base, whose maps they are.
        ("cam+fsae", "cam.cam_scales", "1,0.5"),
        # BRNF has a network of its own; the base's maps are seeds.
        ("cam+brnf", "cam.cam_scales", "1"),
        ("cam+brnf", "brnf.cam_scales", "1,0.5"),
    ],
)
def test_maps_are_recorded_at_the_scales_that_they_were_made_at(method: str, knob: str, scales: str) -> None:
    plan = make_plan(parse([f"methods={method}", f"{knob}=1,0.5", *SMALL], Words, "sweep", registry().names()))
    run = next(p.run for p in plan.studies if p.run.method == method)
    made = {
        name: eval_columns("k", run, Target(name, "student"), "val", "none", run.inference)
        for name in ("cam", "pseudo", "segmentation")
    }
    assert [made[name]["scales"] for name in made] == [scales, scales, "1"]
