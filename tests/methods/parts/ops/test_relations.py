"""A6 against hand numbers and loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.parts.ops.relations import ptc_loss, token_relations

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def pair_loss(features: Tensor, labels: Tensor) -> Tensor:
    """A6 pair by pair, in double precision, differentiable."""
    near, far = features.new_zeros(()).double(), features.new_zeros(()).double()
    n1 = n0 = 0
    for image, label in zip(features.double(), labels, strict=True):
        for i in range(len(label)):
            for j in range(len(label)):
                if i == j or label[i] == 255 or label[j] == 255:
                    continue
                a, b = image[i], image[j]
                cosine = (a @ b / (a.norm().clamp(min=1e-8) * b.norm().clamp(min=1e-8))).abs()
                if label[i] == label[j]:
                    near, n1 = near + cosine, n1 + 1
                else:
                    far, n0 = far + cosine, n0 + 1
    return 0.5 * (1 - near / (n1 + 1)) + 0.5 * far / (n0 + 1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("features", "labels", "expected"),
    [
        ([[1.0, 0], [1, 0], [0, 1]], [1, 1, 2], 1 / 6),
        ([[1.0, 0], [1, 0], [1, 0]], [1, 1, 2], 0.566667),
        ([[1.0, 0], [-1, 0], [0, 1]], [1, 1, 0], 1 / 6),
        ([[1.0, 0], [-1, 0], [0, 1]], [255, 255, 255], 0.5),
    ],
)
def test_hand_numbers(device: str, features, labels, expected: float) -> None:
    relation = token_relations(torch.tensor([labels], device=device))
    assert ptc_loss(torch.tensor([features], device=device), relation).item() == pytest.approx(expected, abs=1e-6)


def test_relations_equal_the_loop() -> None:
    labels = torch.tensor([[0, 1, 255, 1, 0], [2, 2, 2, 0, 255]])
    found = token_relations(labels)
    for b, label in enumerate(labels.tolist()):
        for i in range(5):
            for j in range(5):
                ignored = i == j or 255 in (label[i], label[j])
                assert found[b, i, j] == (255 if ignored else int(label[i] == label[j]))
    assert torch.equal(token_relations(labels.view(2, 1, 5)), found)


def test_value_and_gradient_equal_the_loop_over_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randn(3, 9, 6, generator=g, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (3, 9), generator=g)]
    loss = ptc_loss(features, token_relations(labels)) * 3
    (found,) = torch.autograd.grad(loss, features)
    expected = pair_loss(features, labels) * 3
    (wanted,) = torch.autograd.grad(expected, features)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
    assert found.abs().max() > 1e-3


def test_relations_that_are_not_symmetric_have_the_right_gradient() -> None:
    g = torch.Generator().manual_seed(1)
    features = torch.randn(1, 4, 3, generator=g, requires_grad=True)
    relation = torch.tensor([[[255, 1, 0, 255], [0, 255, 1, 1], [255] * 4, [1, 255, 255, 255]]])
    unit = torch.nn.functional.normalize(features, dim=-1)
    cosine = (unit @ unit.transpose(1, 2)).abs()
    plain = 0.5 * (1 - cosine[relation == 1].sum() / 5) + 0.5 * cosine[relation == 0].sum() / 3
    (wanted,) = torch.autograd.grad(plain, features)
    loss = ptc_loss(features, relation)
    (found,) = torch.autograd.grad(loss, features)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_all_ignored_has_a_zero_gradient() -> None:
    features = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ptc_loss(features, token_relations(torch.full((1, 4), 255))).backward()
    assert features.grad is not None
    assert features.grad.count_nonzero() == 0


def test_zero_tokens_are_finite() -> None:
    features = torch.zeros(1, 3, 2, requires_grad=True)
    loss = ptc_loss(features, token_relations(torch.tensor([[1, 1, 2]])))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_single_precision_under_autocast_and_without_gradient() -> None:
    features = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    relation = token_relations(torch.tensor([[0, 0, 1, 1, 2, 2, 255, 0]] * 2))
    plain = ptc_loss(features, relation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ptc_loss(features, relation), plain)
    low = features.bfloat16()
    assert ptc_loss(low, relation).dtype == torch.float32
    assert math.isclose(ptc_loss(low, relation).item(), ptc_loss(low.float(), relation).item(), abs_tol=1e-6)
    assert not plain.requires_grad
