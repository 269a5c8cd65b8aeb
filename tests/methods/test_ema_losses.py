"""The consistency of student and teacher: the self-checks of sparse_baselines.md 2.6."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from methods.ema.losses import consistency_loss, ramp, warm_momentum


def case(grad=False):
    """Two pixels of two classes: the first labelled 0, the second not."""
    student = torch.tensor([[0.8, 0.5], [0.2, 0.5]]).log()[None, :, None].requires_grad_(grad)
    teacher = torch.tensor([[0.9, 0.75], [0.1, 0.25]]).log()[None, :, None].requires_grad_(grad)
    label = torch.tensor([[[0, 255]]])
    return student, teacher, label, torch.ones(1, 1, 2, dtype=torch.bool)


def total(student, teacher, label, content, **words):
    pce = F.cross_entropy(student, label, ignore_index=255)
    return float(0.5 * pce + 0.5 * consistency_loss(student, teacher, label, content, **words))


@pytest.mark.parametrize(("tau", "value"), [(0.95, 0.11157), (0.8, 0.12792), (0.7, 0.14427)])
def test_self_check_1_the_released_form(tau, value):
    """w = 0, 1/2 and 1 with the divergence over K: .06541 of the unlabelled pixel."""
    student, teacher, label, content = case()
    assert total(student, teacher, label, content, tau=tau, target="kl_mean", mask="share") == pytest.approx(
        value, abs=1e-5
    )
    unscaled = consistency_loss(student, teacher, label, content, target="kl_mean", mask="none")
    assert float(unscaled) == pytest.approx(0.06541, abs=1e-5)
    assert float(consistency_loss(student, teacher, label, content, target="kl", mask="none")) == pytest.approx(
        0.13081, abs=1e-5
    )


@pytest.mark.parametrize(("tau", "value"), [(0.95, 0.11157), (0.7, 0.45815)])
def test_self_check_4_the_default_form(tau, value):
    student, teacher, label, content = case()
    assert total(student, teacher, label, content, tau=tau) == pytest.approx(value, abs=1e-5)


def test_only_unlabelled_real_pixels_count_and_the_teacher_gets_no_gradient():
    student, teacher, label, content = case(grad=True)
    loss = consistency_loss(student, teacher, label, content, tau=0.7)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2), rel=1e-5)
    assert teacher.grad is None
    assert not student.grad[..., 0].any()
    student, teacher, label, content = case()
    padded = content.clone()
    padded[..., 1] = False
    assert float(consistency_loss(student, teacher, label, padded, tau=0.7)) == 0.0
    assert float(consistency_loss(student, teacher, torch.zeros_like(label), content, tau=0.7)) == 0.0


def test_the_mean_runs_over_all_unlabelled_pixels():
    """Two unlabelled pixels, one of them sure: half its cost."""
    student = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()[None, :, None]
    teacher = torch.tensor([[0.99, 0.6], [0.01, 0.4]]).log()[None, :, None]
    label, content = torch.full((1, 1, 2), 255), torch.ones(1, 1, 2, dtype=torch.bool)
    assert float(consistency_loss(student, teacher, label, content)) == pytest.approx(math.log(2) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="'soft' of hard, kl, kl_mean"):
        consistency_loss(student, teacher, label, content, target="soft")


def test_self_check_3_momentum_and_ramp():
    found = [warm_momentum(step, 0.999) for step in (0, 1, 2, 9, 999, 100000)]
    assert found == pytest.approx([0, 0.5, 2 / 3, 0.9, 0.999, 0.999], abs=1e-9)
    assert [ramp(x, 1.0) for x in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(
        [0.00674, 0.06005, 0.28650, 0.73162, 1], abs=1e-5
    )
    assert ramp(0.0, 0.0) == 1.0
    assert ramp(0.1, 0.2) == pytest.approx(math.exp(-5 / 4))
