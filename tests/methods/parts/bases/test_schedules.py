"""Learning-rate factors and decay groups of the FSR and ToCo cards."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from methods.parts.bases.schedules import decay_groups, warmup_cosine, warmup_poly


def test_cosine_of_the_fsr_card() -> None:
    factor = [warmup_cosine(step, 20_000, 1500) for step in (0, 750, 1500, 10_750, 20_000, 25_000)]
    assert factor == pytest.approx([0.1, 0.55, 1.0, 0.5, 0.0, 0.0], abs=1e-12)
    curve = [warmup_cosine(step, 200, 15) for step in range(200)]
    assert curve[:16] == sorted(curve[:16])
    assert curve[15:] == sorted(curve[15:], reverse=True)


def test_poly_of_the_toco_card() -> None:
    base = 6e-5
    assert base * warmup_poly(199, 20_000, 1500) == pytest.approx(7.960e-6, abs=5e-10)
    assert base * warmup_poly(1599, 20_000, 1500) == pytest.approx(5.566e-5, abs=5e-9)
    assert warmup_poly(1500, 20_000, 1500) == pytest.approx(0.932, abs=5e-4)
    assert warmup_poly(20_000, 20_000, 1500) == 0


@pytest.mark.parametrize("schedule", [warmup_cosine, warmup_poly])
def test_no_warm_up_and_a_run_that_is_all_warm_up(schedule) -> None:
    assert schedule(0, 10, 0) == 1.0
    assert all(math.isfinite(schedule(step, 10, 10)) for step in range(12))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 3))
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
        self.inner = nn.Module()
        self.inner.mask_token = nn.Parameter(torch.zeros(1, 3))


def test_decay_on_weights_of_two_axes_only() -> None:
    net = Net()
    decayed, spared = decay_groups(net.named_parameters(), lr=0.5, weight_decay=0.05)
    assert decayed["params"] == [net.linear.weight]
    assert decayed["lr"] == spared["lr"] == 0.5
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    kept = {id(p) for p in spared["params"]}
    wanted = [net.pos_embed, net.inner.mask_token, net.linear.bias, net.norm.weight, net.norm.bias]
    assert kept == {id(p) for p in wanted}


def test_empty_groups_are_left_out() -> None:
    groups = decay_groups([("weight", nn.Parameter(torch.zeros(2, 2)))], lr=1.0, weight_decay=0.1)
    assert len(groups) == 1
    assert groups[0]["weight_decay"] == 0.1
    assert decay_groups([], lr=1.0, weight_decay=0.1) == []
