"""What of data, weights and machine is part of a study, and what this machine can hold."""

import dataclasses

import pytest

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan import one_study
from harness.plan import row as planning
from harness.plan.payload import PlannedData
from harness.plan.plan import Plan, make_plan

SMALL = ["data.n_train=64", "data.n_val=8", "data.n_test=8"]


def plan(*words: str) -> Plan:
    return make_plan(parse([*SMALL, *words], Words, "sweep", registry().names()))


def test_the_same_words_over_other_data_or_weights_are_another_study(tmp_path, monkeypatch):
    one = plan("methods=cam").studies[0]
    assert plan("methods=cam", f"store={tmp_path}", "keep=none").studies[0].study.id == one.study.id
    real = PlannedData.of

    def moved(split):
        def of(dataset, splits):
            found = real(dataset, splits)
            return dataclasses.replace(found, fingerprints={**found.fingerprints, split: "other"})

        return of

    for split in ("train", "tune"):
        with monkeypatch.context() as patch:
            patch.setattr(PlannedData, "of", moved(split))
            assert plan("methods=cam").studies[0].study.id != one.study.id, split
    other = dataclasses.replace(one.pretrained, digest="other")
    monkeypatch.setattr(one_study, "find", lambda backbone, weights: other)
    assert plan("methods=cam").studies[0].study.id != one.study.id, "other weights"


def test_threads_fit_the_cores_of_this_machine(monkeypatch):
    """With a GPU four threads are usual; a machine of two cores has two."""
    monkeypatch.setattr(planning, "gpus_per_worker", lambda words, problems: 1.0)
    for cores, workers, threads in ((2, 1, 2), (16, 1, 4), (6, 2, 3), (1, 1, 1)):
        monkeypatch.setattr("os.cpu_count", lambda n=cores: n)
        made = plan("methods=cam", f"workers={workers}", "batch=8", "group=2")
        assert made.machine.threads == threads, (cores, workers)
        assert made.studies[0].study.threads == threads


def test_a_run_that_this_machine_cannot_hold_is_refused_before_ray_starts(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(BadInput, match=r"1 with 3 thread\(s\) each, but this machine has 2 core\(s\)"):
        plan("methods=cam", "threads=3")
    with pytest.raises(BadInput, match="4 with 1 thread"):
        plan("methods=cam", "workers=4", "batch=8", "group=2")
    assert plan("methods=cam", "threads=3", "ray=off").machine.threads == 3
    assert plan("methods=cam", "threads=3", "gpus=0", "address=ray://head:10001").machine.threads == 3
