"""BRNF's step beside its network alone: equal numbers, and operations at the card's sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.floor import products_of
from benchmarks.suites import brnf_step
from harness.api.method import Batch, BuildInfo, Progress
from methods.brnf.config import ABLATIONS
from methods.brnf.knobs import BrnfConfig
from methods.brnf.method import Brnf


def test_network_terms_are_those_of_the_network_alone() -> None:
    (case,) = (c for c in brnf_step.cases(quick=True) if "smoke" in c.name)
    assert "bit-equal" in case.equal()


def operations(**knobs) -> float:
    """GFLOP of a step on an image, every term on, at brnf.md 2's sizes."""
    info = BuildInfo(
        num_classes=20, has_background=True, crop=512, iterations=3966, group=16, tier="paper", variant="default",
        labels="tags", backbone="resnet50.tv_in1k", backbone_weights="random", decoder="deeplabv2",
    )  # fmt: skip
    torch.manual_seed(0)
    method = Brnf(dataclasses.replace(BrnfConfig(), **knobs), info).train()
    group = Batch(("a",), {"view1": torch.randn(1, 3, 512, 512)}, torch.eye(20)[:1], None, None,
                  {"seed": torch.rand(1, 20, 32, 32)})  # fmt: skip

    def step() -> None:
        out = method.step(group, Progress(3000, 3966))
        torch.stack(list(out.losses.values())).sum().backward()

    return products_of(step).flops / 1e9


@pytest.mark.slow
def test_flows_and_bank_cost_at_most_a_third_of_the_network() -> None:
    alone, whole = operations(**ABLATIONS["base"]), operations()
    assert 1.0 < whole / alone <= 1.35
