"""Pairs, paths, affinity and the two losses. Numbers of irn.md section 8."""

from __future__ import annotations

import math

import pytest
import torch

from methods.parts.ops.pixel_pairs import affinity, affinity_loss, displacement_loss, pair_labels, pairs, paths

CARD_EDGE = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0.15, 0.25, 0.35, 0.45]])
CARD_LABEL = torch.tensor([[0, 0, 3, 255], [0, 3, 3, 3], [0, 0, 0, 0]])


def test_offsets_and_path_lengths_of_the_card():
    """irn.md 8.1."""
    assert [len(paths(r)) for r in (3, 5, 10)] == [12, 34, 152]
    lengths = [len(path.cells) for path in paths(3)]
    assert lengths == [2, 2, 3, 3, 4, 4, 6, 6, 6, 6, 7, 7]
    assert max(len(path.cells) for path in paths(10)) == 22
    assert sum(len(path.cells) for path in paths(10)) == 2134
    source_P, target_RP, offset_R2 = pairs(10, (128, 128))
    assert source_P.shape == (13_090,)
    assert target_RP.shape == (152, 13_090)
    assert target_RP.numel() == 1_989_680
    assert bool((offset_R2.square().sum(1) < 100).all())


def test_path_of_a_knight_move_covers_its_box():
    """irn.md 8.2."""
    path = next(p for p in paths(3) if p.offset == (1, -2))
    assert set(path.cells) == {(1, -2), (0, -2), (1, -1), (0, -1), (1, 0), (0, 0)}
    assert len(path.cells) == 6


def test_a_path_is_every_cell_nearer_than_one_to_the_line():
    for path in paths(10):
        dy, dx = path.offset
        box = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
        near = {(y, x) for y, x in box if abs(dy * x - dx * y) < math.hypot(dy, dx) - 1e-12}
        assert set(path.cells) == near
        assert {(0, 0), path.offset} <= near


def test_pairs_stay_on_the_grid_and_lie_at_their_offset():
    source_P, target_RP, offset_R2 = pairs(2.5, (7, 6))
    assert (int(source_P.min()), int(source_P.max())) == (2, 4 * 6 + 3)
    row, column = target_RP // 6, target_RP % 6
    assert torch.equal(row - source_P // 6, offset_R2[:, :1].expand_as(row))
    assert torch.equal(column - source_P % 6, offset_R2[:, 1:].expand_as(row))


def test_affinity_of_the_card():
    """irn.md 8.4."""
    source_P, _, offset_R2 = pairs(2, (3, 4))
    assert source_P.tolist() == [1, 2, 5, 6]
    assert offset_R2.tolist() == [[0, 1], [1, 0], [1, -1], [1, 1]]
    found = affinity(CARD_EDGE[None], 2)[0]
    expected = [[0.7, 0.6, 0.3, 0.2], [0.4, 0.3, 0.4, 0.3], [0.4, 0.3, 0.4, 0.3], [0.3, 0.2, 0.3, 0.2]]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def gathered(edge_BHW: torch.Tensor, radius: float) -> torch.Tensor:
    """Affinity by gathering every cell of every path."""
    width = edge_BHW.shape[2]
    source_P, _, _ = pairs(radius, edge_BHW.shape[1:])
    flat = edge_BHW.flatten(1)
    return torch.stack(
        [1 - torch.stack([flat[:, source_P + y * width + x] for y, x in p.cells]).amax(0) for p in paths(radius)], dim=1
    )


@pytest.mark.parametrize(("radius", "hw"), [(3, (9, 11)), (5, (10, 17)), (2.5, (5, 5)), (10, (24, 23))])
def test_affinity_and_its_gradient_equal_those_of_gathered_paths(radius, hw):
    generator = torch.Generator().manual_seed(0)
    edge = torch.rand(2, *hw, generator=generator, dtype=torch.float64).requires_grad_()
    ours, plain = affinity(edge, radius), gathered(edge, radius)
    assert torch.equal(ours, plain)
    weight = torch.rand(ours.shape, generator=generator, dtype=torch.float64)
    one, other = (torch.autograd.grad((a * weight).sum(), edge)[0] for a in (ours, plain))
    assert torch.allclose(one, other, atol=1e-12)
    assert float(one.abs().sum()) > 0


def test_edge_loss_of_the_card():
    """irn.md 8.5."""
    bg, fg, neg = pair_labels(CARD_LABEL, 2)
    assert (int(bg.sum()), int(fg.sum()), int(neg.sum())) == (1, 5, 9)
    a = affinity(CARD_EDGE[None], 2)
    assert -(a[0][bg] + 1e-5).log().mean() == pytest.approx(0.91626, abs=2e-5)
    assert -(a[0][fg] + 1e-5).log().mean() == pytest.approx(1.36612, abs=2e-5)
    assert -(1 + 1e-5 - a[0][neg]).log().mean() == pytest.approx(0.48735, abs=2e-5)
    assert float(affinity_loss(a, bg, fg, neg)) == pytest.approx(0.81427, abs=2e-5)


def test_displacement_loss_of_the_card():
    """irn.md 8.6: half of L_fg 1.4 plus L_bg .75."""
    bg, fg, _ = pair_labels(CARD_LABEL, 2)
    flow = torch.stack([torch.arange(12.0).view(3, 4) / 2, torch.zeros(3, 4)])[None]
    nobody = torch.zeros_like(bg)
    assert float(displacement_loss(flow, nobody, fg, 2)) == pytest.approx(1.4 / 2, abs=1e-5)
    assert float(displacement_loss(flow, bg, nobody, 2)) == pytest.approx(0.75 / 2, abs=1e-5)
    assert float(displacement_loss(flow, bg, fg, 2)) == pytest.approx((1.4 + 0.75) / 2, abs=1e-5)


def test_a_displacement_that_points_to_one_centroid_costs_nothing():
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    flow = torch.stack([2 - y, 3 - x])[None]
    bg, fg, neg = pair_labels(torch.full((6, 7), 4), 2.5)
    assert int(bg.sum()) == int(neg.sum()) == 0
    assert float(displacement_loss(flow, bg, fg, 2.5)) == 0.0


def test_pairs_of_a_batch_and_means_over_the_whole_group():
    label = torch.stack([CARD_LABEL, torch.full_like(CARD_LABEL, 255)])
    masks = pair_labels(label, 2)
    for mask, one in zip(masks, pair_labels(CARD_LABEL, 2), strict=True):
        assert torch.equal(mask[0], one)
        assert not mask[1].any()
    a = affinity(CARD_EDGE.expand(2, 3, 4), 2)
    assert float(affinity_loss(a, *masks)) == pytest.approx(0.81427, abs=2e-5)
    shared = affinity_loss(a, *pair_labels(CARD_LABEL, 2))
    assert float(shared) == pytest.approx(0.81427, abs=2e-5)


def test_no_pair_costs_nothing_and_is_finite():
    edge = torch.full((1, 3, 4), 1.0, requires_grad=True)
    nobody = torch.zeros(4, 4, dtype=torch.bool)
    loss = affinity_loss(affinity(edge, 2), nobody, nobody, nobody)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert edge.grad is not None
    assert torch.equal(edge.grad, torch.zeros(1, 3, 4))
    everybody = torch.ones(4, 4, dtype=torch.bool)
    worst = affinity_loss(affinity(torch.ones(1, 3, 4), 2), everybody, everybody, nobody)
    assert float(worst) == pytest.approx(-math.log(1e-5) / 2, rel=1e-4)


def test_a_grid_too_small_for_the_radius_has_no_pairs():
    source_P, target_RP, offset_R2 = pairs(5, (3, 8))
    assert (source_P.shape, target_RP.shape, offset_R2.shape) == ((0,), (34, 0), (34, 2))
    a = affinity(torch.rand(2, 3, 8), 5)
    assert a.shape == (2, 34, 0)
    assert float(affinity_loss(a, *pair_labels(torch.zeros(2, 3, 8, dtype=torch.int64), 5))) == 0.0
    with pytest.raises(ValueError, match="more than 1"):
        paths(1)
