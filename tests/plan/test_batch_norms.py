"""Batch norm is synchronised over the group or not at all: what a plan lets pass, and that workers agree on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import methods.pce.method
from harness.cli.run_words import BackboneWords
from harness.errors import BadInput
from harness.plan.build import check_build
from harness.testing import in_processes
from harness.testing.running import MethodRunner
from methods.parts.nets.deeplab import GroupBatchNorm


class Learns(MethodRunner):
    """`agmm` on a CNN whose batch norm learns, as at tier paper; two groups of two images a step."""

    method = "agmm"
    labels = "scribbles"
    words = {"backbone": BackboneWords("shapes_cnn")}


def run_of(**words: object) -> Any:
    made = type("Pce", (MethodRunner,), {"method": "pce", "labels": "scribbles", "words": words})()
    return made.run_config(), made.dataset()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_a_batch_norm_of_its_own_needs_a_single_group(norm, monkeypatch):
    built = methods.pce.method.build

    def build(config, info):
        method = built(config, info)
        method.net.extra = norm(4)
        return method

    monkeypatch.setattr(methods.pce.method, "build", build)
    with pytest.raises(BadInput, match=r"batch 4 in groups of 2, and batch norm net\.extra keeps") as caught:
        check_build(*run_of())
    assert "group=4" in str(caught.value)
    check_build(*run_of(group=4))
    monkeypatch.setattr(norm, "over_group", True, raising=False)
    check_build(*run_of())


def test_one_that_is_frozen_is_no_concern(monkeypatch):
    built = methods.pce.method.build

    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    def build(config, info):
        method = built(config, info)
        method.net.extra = Frozen(4)
        return method

    monkeypatch.setattr(methods.pce.method, "build", build)
    check_build(*run_of())


def test_two_workers_agree_on_a_backbone_whose_batch_norm_learns(tmp_path):
    tests = Learns()
    run = tests.run_config({"train_norms": True, "optimizer": "sgd", "schedule": "poly"}, steps=3)
    one, trained = tests.train(run, tmp_path / "one")
    two, steps = in_processes(tests, run, tmp_path, 2)
    norms = {n for n, m in one.named_modules() if isinstance(m, GroupBatchNorm) and "encoder" in n}
    assert norms
    for name, value in one.state_dict().items():
        assert torch.allclose(two[name], value, rtol=1e-4, atol=1e-5), name
    for (step, name, value), (_, _, other) in zip(trained.steps, steps, strict=True):
        assert other == pytest.approx(value, rel=1e-4, abs=1e-6), (step, name)
    start = tests.build(run, tests.dataset()).state_dict()
    moved = [n for n in start if n.endswith("running_var") and not torch.equal(start[n], one.state_dict()[n])]
    assert {n.removesuffix(".running_var") for n in moved} >= norms
