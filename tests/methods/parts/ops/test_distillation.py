"""fsr 2.5 and 2.6 against the numbers of the card."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.parts.ops.distillation import (
    class_loss,
    ema_centre,
    ema_momentum,
    patch_loss,
    sharpened_cross_entropy,
    teacher_temperature,
)


def test_uniform_logits_cost_the_log_of_the_prototypes() -> None:
    flat, centre = torch.zeros(2, 4096), torch.zeros(4096)
    assert class_loss(flat, flat, centre, 0.1, 0.04).item() == pytest.approx(8.3178, abs=1e-4)
    patches = torch.zeros(2, 3, 4096)
    assert patch_loss(patches, patches, centre, 0.1, 0.04).item() == pytest.approx(math.log(4096), abs=1e-4)


def test_losses_and_centres_of_the_card() -> None:
    zero, tau_t = torch.zeros(2), teacher_temperature(0, 20_000, 0.04, 0.07)
    teacher_cls, student_cls = torch.tensor([[0.1, 0.0]]), torch.tensor([[0.2, 0.0]])
    teacher_patch, student_patch = torch.tensor([[[0.04, 0.0]]]), torch.tensor([[[0.0, 0.1]]])
    assert class_loss(student_cls, teacher_cls, zero, 0.1, tau_t).item() == pytest.approx(0.27864, abs=1e-5)
    assert patch_loss(student_patch, teacher_patch, zero, 0.1, tau_t).item() == pytest.approx(1.04432, abs=1e-5)
    assert ema_centre(zero, teacher_cls.mean(0)).tolist() == pytest.approx([0.01, 0])
    assert ema_centre(zero, teacher_patch.mean((0, 1))).tolist() == pytest.approx([0.004, 0])
    assert zero.count_nonzero() == 0


def test_the_centre_is_subtracted_and_the_teacher_gets_no_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    student = torch.randn(3, 5, generator=g, requires_grad=True)
    teacher = torch.randn(3, 5, generator=g, requires_grad=True)
    centre = torch.randn(5, generator=g)
    found = sharpened_cross_entropy(student, teacher, centre, 0.1, 0.05)
    p = ((teacher - centre) / 0.05).exp()
    p = (p / p.sum(1, keepdim=True)).detach()
    torch.testing.assert_close(found, -(p * (student / 0.1).log_softmax(1)).sum(1))
    found.mean().backward()
    assert teacher.grad is None
    q = (student / 0.1).softmax(1)
    torch.testing.assert_close(student.grad, (q - p).detach() / 0.1 / 3, atol=1e-5, rtol=1e-4)


def test_patch_loss_equals_the_loop_and_an_image_does_not_depend_on_its_batch() -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4, 6, 7, generator=g), torch.randn(4, 6, 7, generator=g)
    centre, mask = torch.randn(7, generator=g) * 0.1, torch.rand(4, 6, generator=g) < 0.5
    mask[2] = False
    expected = []
    for s, t, m in zip(student, teacher, mask, strict=True):
        terms = [sharpened_cross_entropy(s[i], t[i], centre, 0.1, 0.05).item() for i in range(6) if m[i]]
        expected.append(sum(terms) / max(1, len(terms)))
    found = patch_loss(student, teacher, centre, 0.1, 0.05, mask)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)
    alone = [patch_loss(student[b : b + 1], teacher[b : b + 1], centre, 0.1, 0.05, mask[b : b + 1]) for b in range(4)]
    assert found.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-6)
    assert alone[2].item() == 0


def test_gathered_tokens_need_no_mask() -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 7, generator=g), torch.randn(2, 6, 7, generator=g)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, [1, 4]] = True
    whole = patch_loss(student, teacher, torch.zeros(7), 0.1, 0.05, mask)
    picked = patch_loss(student[:, [1, 4]], teacher[:, [1, 4]], torch.zeros(7), 0.1, 0.05)
    torch.testing.assert_close(whole, picked)
    empty = patch_loss(student[:, :0].requires_grad_(), teacher[:, :0], torch.zeros(7), 0.1, 0.05)
    assert empty.item() == 0


def test_half_precision_projections_give_a_single_precision_loss() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = class_loss(logits, logits, torch.zeros(9), 0.1, 0.04)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(class_loss(logits.float(), logits.float(), torch.zeros(9), 0.1, 0.04).item())


def test_teacher_temperature_of_the_card() -> None:
    found = [teacher_temperature(step, 20_000, 0.04, 0.07) for step in (0, 1249, 2499, 2500, 19_999)]
    assert found == pytest.approx([0.04, 0.054994, 0.07, 0.07, 0.07], abs=1e-6)
    grid = np.linspace(0.04, 0.07, 25)
    assert [teacher_temperature(i, 200, 0.04, 0.07) for i in range(25)] == pytest.approx(grid.tolist())
    assert [teacher_temperature(i, total, 0.04, 0.07) for total in (1, 8) for i in (0, 1)] == [
        0.07,
        0.07,
        0.04,
        0.07,
    ]


def test_momentum_of_the_card() -> None:
    assert ema_momentum(0, 20_000, 0.9995) == pytest.approx(0.9995, abs=1e-15)
    assert ema_momentum(10_000, 20_000, 0.9995) == pytest.approx(0.99975, abs=1e-15)
    assert ema_momentum(19_999, 20_000, 0.9995) == pytest.approx(0.9999999999969, abs=1e-13)
    assert ema_momentum(20_000, 20_000, 0.9995) == 1.0


def test_centre_converges_to_a_constant_mean() -> None:
    centre = torch.zeros(3)
    for _ in range(200):
        centre = ema_centre(centre, torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(centre, torch.tensor([1.0, -2.0, 0.5]), atol=1e-6, rtol=1e-6)
