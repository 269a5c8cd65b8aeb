"""A7 and the classification loss against hand numbers and loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from methods.parts.ops.losses import balanced_segmentation_loss, cross_entropy_ignore, multilabel_soft_margin

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


@pytest.mark.parametrize("device", DEVICES)
def test_zero_logits_cost_the_log_of_the_labels(device: str) -> None:
    label = (torch.arange(64, device=device) % 21).view(1, 8, 8)
    loss = balanced_segmentation_loss(torch.zeros(1, 21, 2, 2, device=device), label)
    assert loss.item() == pytest.approx(3.04452, abs=1e-5)


def test_hand_number_with_an_ignored_pixel() -> None:
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 0, 0, :2] = math.log(2)
    label = torch.tensor([[[0, 0, 1, 255]]])
    assert balanced_segmentation_loss(logits, label).item() == pytest.approx(0.895880, abs=1e-6)
    expected = (2 * math.log(2) + math.log(3)) / 3
    assert cross_entropy_ignore(logits, label).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("fill", [0, 2, 255])
def test_empty_sets_count_zero(fill: int) -> None:
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    loss = balanced_segmentation_loss(logits, torch.full((1, 8, 8), fill))
    assert loss.item() == pytest.approx(0.0 if fill == 255 else 0.5 * math.log(3), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    plain = cross_entropy_ignore(logits, torch.full((1, 8, 8), fill))
    assert plain.item() == pytest.approx(0.0 if fill == 255 else math.log(3), abs=1e-6)


def test_equal_to_two_masked_means() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, 6, generator=g, requires_grad=True)
    label = torch.tensor([0, 0, 0, 1, 2, 3, 4, 255])[torch.randint(0, 8, (3, 16, 24), generator=g)]
    full = F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
    nll = -full.log_softmax(1).gather(1, label.masked_fill(label == 255, 0)[:, None])[:, 0]
    expected = 0.5 * nll[label == 0].mean() + 0.5 * nll[(label > 0) & (label < 255)].mean()
    found = balanced_segmentation_loss(logits, label)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(grads[0], grads[1], atol=1e-7, rtol=1e-4)
    assert cross_entropy_ignore(logits, label).item() == pytest.approx(nll[label < 255].mean().item(), abs=1e-6)


def test_soft_margin_is_the_mean_over_images_and_classes() -> None:
    logits, tags = torch.tensor([[0.0, 2.0], [-1.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    one = [math.log(2), math.log1p(math.exp(2)), math.log1p(math.exp(-1)), math.log1p(math.exp(-3))]
    assert multilabel_soft_margin(logits, tags).item() == pytest.approx(sum(one) / 4, abs=1e-6)
    torch.testing.assert_close(multilabel_soft_margin(logits, tags), F.multilabel_soft_margin_loss(logits, tags))


def test_half_precision_logits_give_single_precision_losses() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    label = (torch.arange(64) % 3).view(1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = balanced_segmentation_loss(logits, label)
        assert cross_entropy_ignore(logits, label).dtype == torch.float32
        assert multilabel_soft_margin(logits[:, :, 0, 0], torch.zeros(1, 3)).dtype == torch.float32
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(balanced_segmentation_loss(logits.float(), label).item(), abs=1e-7)


def test_unknown_label_values_are_refused() -> None:
    with pytest.raises((IndexError, RuntimeError)):
        balanced_segmentation_loss(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 3))
