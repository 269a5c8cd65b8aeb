"""On a cluster the plan asks for what its machines bring, by its file; the machine that plans does not matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan import inputs
from harness.plan.plan import make_plan
from harness.tuning.describe import plan_text

ROOT = Path(__file__).parents[2]
AWS = f"cluster={ROOT / 'cluster.yaml'}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without a cluster's file, on a machine that must not be asked for its own GPUs."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def asked():
        raise AssertionError("the machine that plans was asked for its GPUs")

    monkeypatch.setattr(inputs, "_gpus_of_torch", asked)
    monkeypatch.setattr(inputs, "_gpu_devices", asked)
    return tmp_path


def plan(home, *words: str):
    sizes = ["data=shapes", "data.n_train=8", "data.n_val=4", "data.n_test=4", "crop=48", "batch=4", "group=2"]
    given = ["methods=cam", *sizes, f"store={home / 'results'}", "address=auto", *words]
    return make_plan(parse(given, Words, "sweep", ["cam"]))


def test_gpus_precision_and_loaders_follow_the_cluster_s_file(home):
    made = plan(home, AWS, "seeds=6")
    assert made.gpus == 1.0
    assert made.machine.threads == 4
    assert made.machine.loaders is None, "as many as its steps need"
    assert plan(home, AWS, "loaders=3").machine.loaders == 3
    assert plan(home, AWS, "gpus=0").machine.loaders == 0
    assert made.studies[0].run.precision == "bf16"
    text = plan_text(made)
    line = "a run asks for 1 worker(s) with 4 CPU(s) and 1 GPU(s) each; machines: at most 4 a10g (8 CPUs, 1 GPUs"
    assert line in text
    assert "with 4 runs at once" in text


def test_words_win_over_the_file(home):
    made = plan(home, AWS, "gpus=0", "precision=fp32")
    assert made.gpus == 0.0
    assert made.studies[0].run.precision == "fp32"
    assert plan(home, "gpus=0.5").gpus == 0.5
    assert "machines: not known" in plan_text(plan(home, "gpus=0.5"))


def test_the_head_finds_the_file_that_ray_up_left(home):
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for name in ("a10g", "l4"):
        config["available_node_types"][name]["resources"] = {"CPU": 4, "GPU": 0}
    (home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
    made = plan(home)
    assert made.gpus == 0.0
    assert made.studies[0].run.precision == "fp32"
    assert f"by {Path('~/ray_bootstrap_config.yaml')}" in plan_text(made)


def test_where_nothing_says_what_machines_have_gpus_must_be_said(home):
    with pytest.raises(
        BadInput, match=r"nothing says what the machines at auto have: there is no ~/ray_bootstrap"
    ) as e:
        plan(home)
    assert len(e.value.problems) == 1
    (home / "ray_bootstrap_config.yaml").write_text("provider: {type: local, head_ip: a, worker_ips: [b]}\n")
    with pytest.raises(BadInput, match="has no resources of node types"):
        plan(home)
    assert plan(home, "gpus=0").gpus == 0.0


def test_what_fits_on_no_machine_is_refused_before_anything_starts(home):
    with pytest.raises(BadInput, match=r"2 worker\(s\) with 4 thread\(s\) and 4 GPU\(s\) each never fit the cluster"):
        plan(home, AWS, "workers=2", "gpus=4")
    with pytest.raises(BadInput, match=r"1 worker\(s\) with 16 thread\(s\) and 1 GPU\(s\) each never fit"):
        plan(home, AWS, "threads=16")
    assert plan(home, AWS, "workers=2").gpus == 1.0


def test_a_file_that_is_no_cluster_s_and_one_without_an_address_are_said(home):
    (home / "x.yaml").write_text("a: 1\n")
    with pytest.raises(BadInput, match="has no provider") as e:
        plan(home, f"cluster={home / 'x.yaml'}")
    assert len(e.value.problems) == 1
    with pytest.raises(BadInput, match="is read only where address="):
        plan(home, AWS, "ray=off", "gpus=0")
