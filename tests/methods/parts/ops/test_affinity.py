"""Affinity: head, pairs, loss, normalisation. Numbers of unia.md section 8."""

from __future__ import annotations

import math

import pytest
import torch

from methods.parts.ops.affinity import (
    AffinityHead,
    affinity_pairs,
    contrastive_affinity_loss,
    evaluation_affinity,
    normalise_affinity,
    radius_mask,
    spread,
)


def loop_mask(h: int, w: int, radius: int) -> torch.Tensor:
    mask = torch.zeros(h * w, h * w, dtype=torch.bool)
    for i in range(h * w):
        for j in range(h * w):
            mask[i, j] = max(abs(i // w - j // w), abs(i % w - j % w)) <= radius
    return mask


def test_radius_mask_of_the_card():
    """unia.md 8.7."""
    mask = radius_mask((28, 28), 7)
    assert int(mask.sum()) == 132_496
    assert mask.numel() == 614_656
    assert torch.equal(mask, mask.T)
    rows = mask.sum(dim=1)
    assert (int(rows[0]), int(rows.min()), int(rows.max())) == (64, 64, 225)


def test_radius_mask_of_an_oblong_grid():
    assert torch.equal(radius_mask((3, 5), 1), loop_mask(3, 5, 1))
    assert torch.equal(radius_mask((5, 3), 2), loop_mask(5, 3, 2))


def test_pairs_against_a_loop():
    label = torch.tensor([[0, 0, 1, 255, 1, 2], [3, 255, 3, 0, 0, 3]])
    near = loop_mask(2, 3, 1)
    expected = torch.zeros(2, 6, 6, dtype=torch.bool)
    for b in range(2):
        for i in range(6):
            for j in range(6):
                expected[b, i, j] = label[b, i] == label[b, j] and label[b, i] != 255 and bool(near[i, j])
    assert torch.equal(affinity_pairs(label, near), expected)
    assert affinity_pairs(label, near)[0, 0, 0], "a token pairs with itself, and background with background"
    blended = torch.tensor([[127.5, 1.0, 1.0]])
    pairs = affinity_pairs(blended, torch.ones(3, 3, dtype=torch.bool))
    assert pairs[0].int().tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize(("batch", "published"), [(4, 0.8331), (2, 1.6661)])
def test_constant_affinity_costs_ln_784(batch, published):
    """unia.md 8.1."""
    near = radius_mask((28, 28), 7)
    affinity = torch.full((batch, 784, 784), 0.37)
    pairs = near.expand(batch, -1, -1)
    loss = float(contrastive_affinity_loss(affinity, pairs))
    assert loss == pytest.approx(math.log(784), abs=1e-4)
    assert loss == pytest.approx(6.6644, abs=1e-3)
    assert loss / (2 * batch) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize(("positives", "bound"), [(225, 0.7132), (150, 0.6829)])
def test_lower_bound(positives, bound):
    """unia.md 8.1: p positives of affinity 1 in each row, the rest 0, B = 4."""
    affinity = torch.zeros(4, 784, 784)
    affinity[:, :, :positives] = 1.0
    loss = float(contrastive_affinity_loss(affinity, affinity.bool())) / 8
    assert loss == pytest.approx(bound, abs=2e-4)
    exact = (math.log(positives * math.e**2 + 784 - positives) - 2) / 8
    assert loss == pytest.approx(exact, rel=1e-4)


def test_loss_against_the_formula_with_gradient():
    torch.manual_seed(0)
    affinity = torch.rand(2, 6, 6, dtype=torch.float32, requires_grad=True)
    pairs = torch.rand(2, 6, 6) < 0.4
    e = (affinity / 0.3).exp()
    each = -(e / (e.sum(-1, keepdim=True) + 1e-4)).log()
    expected = (each * pairs).sum() / (pairs.sum() + 1)
    (wanted,) = torch.autograd.grad(expected, affinity)
    found = contrastive_affinity_loss(affinity, pairs, 0.3)
    (gradient,) = torch.autograd.grad(found, affinity)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)


def test_no_pairs_cost_nothing():
    affinity = torch.rand(2, 4, 4, requires_grad=True)
    loss = contrastive_affinity_loss(affinity, torch.zeros(2, 4, 4, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not affinity.grad.any()


def test_head_is_the_convolution_of_maps_plus_transposes_and_symmetric():
    torch.manual_seed(0)
    head = AffinityHead(5)
    maps = [torch.rand(2, 3, 7, 7), torch.rand(2, 2, 7, 7, requires_grad=True)]
    affinity = head(maps)
    both = torch.cat(maps, dim=1)
    expected = head.conv(both + both.transpose(2, 3)).sigmoid()[:, 0]
    torch.testing.assert_close(affinity, expected)
    assert torch.equal(affinity, affinity.transpose(1, 2))
    affinity.sum().backward()
    assert maps[1].grad is not None
    assert head.conv.weight.grad is not None
    assert head.conv.bias.grad is not None


def test_sinkhorn_of_the_card():
    """unia.md 8.9."""
    matrix = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=torch.float64)
    found = normalise_affinity(matrix, "sinkhorn", sweeps=50)[0]
    p = 0.44949
    assert found.flatten().tolist() == pytest.approx([p, 1 - p, 1 - p, p], abs=1e-5)
    assert found.sum(0).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert found.sum(1).tolist() == pytest.approx([1, 1], abs=1e-6)
    torch.testing.assert_close(found, found.T)


def test_normalisations():
    torch.manual_seed(0)
    affinity = torch.rand(2, 6, 6) + 0.1
    assert normalise_affinity(affinity, "none") is affinity
    torch.testing.assert_close(normalise_affinity(affinity, "colnorm").sum(1), torch.ones(2, 6))
    assert torch.equal(*(normalise_affinity(affinity, "sinkhorn", 3) for _ in range(2)))
    with pytest.raises(ValueError, match="rows"):
        normalise_affinity(affinity, "rows")


def test_evaluation_affinity_squares_masks_and_normalises_columns():
    affinity = torch.tensor([[[0.5, 1.0], [1.0, 0.2]]])
    near = torch.tensor([[True, True], [False, True]])
    found = evaluation_affinity(affinity, near)[0]
    assert found.flatten().tolist() == pytest.approx([0.25 / 0.35, 1 / 1.14, 0, 0.04 / 1.14])


def test_spread_moves_scores_along_the_affinity():
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])
    affinity = torch.tensor([[[0.5, 0.25], [0.75, 1.0]]])
    assert spread(maps, affinity)[0, :, 0].tolist() == [[0.5, 0.25], [1.5, 2.0]]
