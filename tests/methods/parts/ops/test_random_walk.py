"""The random walk next to dense matrices, and masks. Numbers of irn.md section 8."""

from __future__ import annotations

import pytest
import torch

from methods.parts.ops import random_walk as module
from methods.parts.ops.pixel_pairs import paths
from methods.parts.ops.random_walk import random_walk, random_walks, walked_masks


def transition(edge_HW: torch.Tensor, radius: float, beta: float) -> torch.Tensor:
    """Columns that sum to 1, (N,N): affinity^beta of all pairs within the image, 1 on the diagonal."""
    h, w = edge_HW.shape
    a = torch.eye(h * w, dtype=edge_HW.dtype)
    for path in paths(radius):
        dy, dx = path.offset
        for y in range(h - dy):
            for x in range(max(0, -dx), min(w, w - dx)):
                value = 1 - max(edge_HW[y + r, x + c] for r, c in path.cells)
                i, j = y * w + x, (y + dy) * w + x + dx
                a[i, j] = a[j, i] = value**beta
    return a / a.sum(dim=0)


def dense_walk(maps_KHW, edge_HW, radius=5, beta=10, exp_times=8):
    t = transition(edge_HW, radius, beta)
    for _ in range(exp_times):
        t = t @ t
    return ((maps_KHW * (1 - edge_HW)).flatten(1) @ t).view_as(maps_KHW)


@pytest.mark.parametrize(
    ("edge", "start", "expected"),
    [
        ([0.0, 0.0], [1.0, 0.0], [0.5, 0.5]),
        ([0.0, 0.5], [1.0, 0.0], [0.80327, 0.19674]),
        ([0.5, 0.5], [1.0, 0.0], [0.40163, 0.09837]),
        ([0.2, 0.2], [1.0, 0.0], [0.4, 0.4]),
        ([0.0, 0.9, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
        ([0.0, 0.3, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_walks_of_the_card(edge, start, expected):
    """irn.md 8.8."""
    found = random_walk(torch.tensor([[start]]), torch.tensor([edge]))
    assert found.flatten().tolist() == pytest.approx(expected, abs=2e-5)


def test_one_squaring_of_the_card():
    found = random_walk(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.0, 0.5]]), exp_times=1)
    assert found.flatten().tolist() == pytest.approx([0.99805, 0.00195], abs=1e-5)


@pytest.mark.parametrize(("h", "w", "radius"), [(7, 9, 5), (9, 3, 5), (1, 6, 3), (6, 1, 3), (8, 8, 2.5)])
def test_steps_equal_squared_matrices(h, w, radius):
    generator = torch.Generator().manual_seed(h)
    edge = 0.9 * torch.rand(h, w, generator=generator, dtype=torch.float64) ** 2
    maps = torch.rand(3, h, w, generator=generator, dtype=torch.float64)
    found = random_walk(maps, edge, radius=radius)
    assert found.dtype == torch.float64
    expected = dense_walk(maps, edge, radius)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    single = random_walk(maps.float(), edge.float(), radius=radius)
    assert torch.allclose(single.double(), expected, rtol=1e-3, atol=1e-6)


def test_images_of_a_batch_walk_apart():
    generator = torch.Generator().manual_seed(1)
    edge, maps = torch.rand(2, 5, 6, generator=generator), torch.rand(2, 4, 5, 6, generator=generator)
    both = random_walk(maps, edge, exp_times=4)
    for b in range(2):
        assert torch.allclose(both[b], random_walk(maps[b], edge[b], exp_times=4), atol=1e-6)


@pytest.mark.parametrize("cells", [1, 100, 1 << 14])
def test_walks_of_many_images_are_those_one_by_one_to_the_last_bit(monkeypatch, cells):
    """Sizes and numbers of maps differ, one image has none; so few cells walk together that some go alone."""
    monkeypatch.setitem(module._CELLS, "cpu", cells)
    generator = torch.Generator().manual_seed(3)
    sizes, counts = [(5, 7), (9, 4), (5, 7), (5, 7), (9, 4), (5, 7)], [2, 1, 4, 0, 3, 1]
    edges = [torch.rand(size, generator=generator) for size in sizes]
    maps = [torch.rand(n, *size, generator=generator) for n, size in zip(counts, sizes, strict=True)]
    how = {"radius": 3, "beta": 6.0, "exp_times": 3, "damp": False}
    found = random_walks(maps, edges, **how)
    assert [tuple(one.shape) for one in found] == [tuple(one.shape) for one in maps]
    for walked, one, edge in zip(found, maps, edges, strict=True):
        assert torch.equal(walked, random_walk(one, edge, **how))
    assert random_walks([], []) == []


def test_a_constant_map_without_damping_stays_constant():
    edge = torch.rand(6, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    maps = torch.full((1, 6, 7), 0.3, dtype=torch.float64)
    assert torch.allclose(random_walk(maps, edge, damp=False), maps, atol=1e-12)
    assert torch.allclose(random_walk(maps.float(), edge, damp=False), maps.float(), atol=1e-4)


def test_walls_and_nothing_at_all():
    wall = torch.zeros(5, 7)
    wall[:, 3] = 1.0
    maps = torch.zeros(1, 5, 7)
    maps[:, :, 0] = 1.0
    found = random_walk(maps, wall)
    assert float(found[..., 4:].abs().max()) == 0.0
    assert float(found[..., 3].abs().max()) == 0.0
    assert float(found[..., :3].min()) == pytest.approx(1 / 3, abs=1e-4)
    assert random_walk(torch.zeros(0, 5, 7), wall).shape == (0, 5, 7)
    assert float(random_walk(torch.ones(1, 1, 1), torch.tensor([[0.25]]))) == pytest.approx(0.75)


def test_the_walk_passes_a_gradient():
    edge = torch.tensor([[0.1, 0.4, 0.2]], dtype=torch.float64, requires_grad=True)
    maps = torch.tensor([[[1.0, 0.2, 0.0]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, e: random_walk(m, e, radius=3, exp_times=2), (maps, edge))


def test_masks_by_hand():
    """irn.md 2.6: one maximum divides all maps; the background score wins a tie."""
    walked = torch.tensor([[[4.0, 1.0, 0.9]], [[0.0, 0.0, 2.0]]])
    labels = torch.tensor([3, 7])
    assert walked_masks(walked, labels, (1, 3), stride=1).tolist() == [[3, 0, 7]]
    assert walked_masks(walked, labels, (1, 3), background=0.2, stride=1).tolist() == [[3, 3, 7]]
    own = torch.tensor([0, 7])
    assert walked_masks(walked, own, (1, 3), background=None, stride=1).tolist() == [[0, 0, 7]]


def test_masks_are_four_times_finer_and_cut_to_the_image():
    walked = torch.zeros(1, 2, 3)
    walked[0, :, 0] = 1.0
    found = walked_masks(walked, torch.tensor([5]), (7, 10))
    assert found.shape == (7, 10)
    assert found.dtype == torch.int64
    # Bilinear, 4 fine cells a coarse one: 1, 1, .875, .625, .375, .125 from the first centre on.
    assert found[0].tolist() == [5, 5, 5, 5, 5, 0, 0, 0, 0, 0]


def test_masks_of_no_class_and_of_empty_maps_are_background():
    assert walked_masks(torch.zeros(0, 2, 2), torch.zeros(0), (5, 6)).tolist() == [[0] * 6] * 5
    assert not walked_masks(torch.zeros(2, 2, 2), torch.tensor([1, 2]), (5, 6)).any()
