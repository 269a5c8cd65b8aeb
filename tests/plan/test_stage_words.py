"""Words of stages that not every recipe has: said as not read where others read them, refused where nobody does, and
one rule for `until`, sizes of further networks and knobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.api.registry import registry
from harness.cli.parsing import parse, parse_rows
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan.plan import Plan, make_plan

SMALL = ["data.n_train=32", "data.n_val=4", "data.n_test=4"]
RECIPES = ("irn", "sipe", "cam+brnf")


def plan(*words: str, single: bool = False) -> Plan:
    command = "train" if single else "sweep"
    return make_plan(parse([*SMALL, *words], Words, command, registry().names(), collect=True), single=single)


def refused(*words: str) -> dict[str, str]:
    with pytest.raises(BadInput) as error:
        plan(*words)
    return {p.where: p.fix for p in error.value.problems}


@pytest.mark.parametrize("method", RECIPES)
def test_sizes_of_a_network_behind_until_are_not_read_and_change_no_key(method: str) -> None:
    alone = plan(f"method={method}", "until=masks", single=True)
    beside = plan(f"method={method}", "until=masks", "segmenter.iterations=7", single=True)
    assert beside.studies[0].run == alone.studies[0].run
    assert alone.parts[0].notes == ()
    assert beside.parts[0].notes == (
        f"segmenter.iterations is not read by {method}: its segmenter is not trained until masks",
    )


def test_a_sweep_over_until_shares_one_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("methods: irn\nrows:\n  - until: write-cams\n  - until: masks\n  - {}\n")
    argv = [f"plan={file}", *SMALL, "segmenter.iterations=7", "affinity.iterations=3", "trials=1"]
    made = make_plan(parse_rows(argv, Words, "sweep", registry().names(), collect=True))
    found = {s.run.until: {name: of["iterations"] for name, of in s.run.networks.items()} for s in made.studies}
    assert found == {"write-cams": {}, "masks": {"affinity": 3}, None: {"affinity": 3, "segmenter": 7}}
    assert [len(part.notes) for part in made.parts] == [2, 1, 0]


@pytest.mark.parametrize("method", RECIPES)
def test_a_knob_of_a_stage_that_is_left_out_is_said_and_not_searched(method: str) -> None:
    name = method.rpartition("+")[2]
    made = plan(f"methods={method}", "until=masks", "trials=3", f"{name}.seg_power=0.8")
    note = f"{name}.seg_power is not read by {method}: no stage that reads it is run until masks"
    assert note in made.parts[0].notes
    study = next(s for s in made.studies if s.run.method == method).study
    whole = next(s for s in plan(f"methods={method}", "trials=3").studies if s.run.method == method).study
    assert study.space is not None
    assert whole.space is not None
    assert not [knob for knob in study.space.knobs if knob.startswith("seg_")]
    assert set(whole.space.knobs) - set(study.space.knobs) <= {"seg_lr_factor"}


def test_knobs_that_another_knob_leaves_without_a_stage_are_not_searched() -> None:
    (study,) = plan("methods=irn", "trials=3", "irn.refine=none").studies
    assert study.study.space is not None
    assert not {"aff_lr", "aff_radius"} & set(study.study.space.knobs)


def test_a_plugin_s_base_that_has_no_such_stage_runs_to_its_end() -> None:
    made = plan("methods=cam+brnf", "until=masks")
    assert {s.run.method: s.run.until for s in made.studies} == {"cam+brnf": "masks", "cam": None}
    assert made.parts[0].notes == ("until=masks is not read by cam: it has no such stage and runs to its end",)


def test_methods_side_by_side_each_read_what_they_have() -> None:
    made = plan("methods=cam,full,irn", "until=masks", "affinity.iterations=3")
    assert {s.run.method: s.run.until for s in made.studies} == {"cam": None, "full": None, "irn": "masks"}
    assert made.parts[0].notes[0] == ("until=masks is not read by cam, full: it has no such stage and runs to its end")
    assert "affinity.iterations is not read by cam, full: it has no affinity" in made.parts[0].notes


def test_what_nobody_reads_is_refused() -> None:
    assert refused("methods=cam,irn", "until=mask") == {"until=mask": "did you mean masks?"}
    assert refused("methods=cam,toco", "until=masks", "segmenter.crop=48") == {
        "until=masks": "known: train, write-cams",
        "segmenter.crop": "leave it out",
    }
    wrong = refused("methods=irn", "until=segment", "affinity.crop=96", "batch=7", "group=2")
    assert set(wrong) == {"until=segment", "batch", "affinity.batch"}, "all problems at once"
    # A stage that the run's own knobs leave out is no end of it.
    assert set(refused("methods=irn", "until=train-affinity", "irn.refine=none")) == {"until=train-affinity"}


def test_rows_of_a_plan_are_asked_together(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("rows:\n  - methods: cam\n  - methods: sipe\n    until: masks\n")

    def made(*words: str) -> Plan:
        argv = [f"plan={file}", *SMALL, "trials=1", *words]
        return make_plan(parse_rows(argv, Words, "sweep", registry().names(), collect=True))

    assert made("affinity.iterations=3").parts[0].notes == (
        "affinity.iterations is not read by cam: it has no affinity",
    )
    with pytest.raises(BadInput, match="until=mask:"):
        made("until=mask")
