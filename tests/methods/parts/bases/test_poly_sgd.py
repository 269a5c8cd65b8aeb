"""SGD with IRN's and SIPE's schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.parts.bases.poly_sgd import poly, poly_sgd


def test_rates_of_sipe():
    """sipe.md 8.6."""
    net = nn.Linear(2, 3)
    optimizer, factor = poly_sgd([{"params": net.parameters(), "lr": 0.1}], weight_decay=1e-4, total=5)
    rates = [0.1 * factor(step) for step in range(7)]
    assert rates[:5] == pytest.approx([0.1, 0.08181, 0.06314, 0.04384, 0.02349], abs=5e-6)
    assert rates[5] == rates[6] == rates[4]
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["lr"]) == (1e-4, 1e-4, 0.1)
    assert 0.1 * poly(500, 3305) == pytest.approx(0.0863, abs=5e-5)


def test_rates_of_irn():
    """irn.md 8.9."""
    assert [0.1 * poly(step, 990) for step in (0, 495, 989)] == pytest.approx([0.1, 0.053589, 0.000201], abs=1e-6)


def test_rates_of_the_base_of_fsae():
    """fsae.md 8.6: 40000 steps of batches of 8 are 30 epochs of 1322; from the last of them on the rate stays."""
    epoch = 10582 // 8
    horizon = epoch * (40000 // epoch)
    assert (epoch, horizon) == (1322, 39660)
    net = nn.Linear(2, 3)
    optimizer, factor = poly_sgd(
        [{"params": net.parameters(), "lr": 0.01}], weight_decay=5e-4, momentum=5e-4, total=horizon
    )
    assert factor(19830) == pytest.approx(0.5359, abs=5e-5)
    assert factor(39660) == factor(39999) == factor(39659) == pytest.approx((1 / 39660) ** 0.9)
    assert optimizer.param_groups[0]["momentum"] == 5e-4


def test_groups_keep_their_rates_and_momentum_can_be_real():
    head, body = nn.Linear(1, 1), nn.Linear(1, 1)
    groups = [{"params": body.parameters(), "lr": 0.01}, {"params": head.parameters(), "lr": 0.1}]
    plan = poly_sgd(groups, weight_decay=5e-4, momentum=0.9, total=10)
    assert [g["lr"] for g in plan.optimizer.param_groups] == [0.01, 0.1]
    assert {g["momentum"] for g in plan.optimizer.param_groups} == {0.9}
    assert plan.factor(5) == pytest.approx(0.5**0.9)


def test_what_cannot_be():
    weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="total 0"):
        poly_sgd([{"params": [weight], "lr": 0.1}], weight_decay=0, total=0)
    with pytest.raises(ValueError, match="its lr"):
        poly_sgd([{"params": [weight]}], weight_decay=0, total=3)
