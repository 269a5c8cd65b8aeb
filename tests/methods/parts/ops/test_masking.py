"""fsr 2.3 against the numbers of the card and a loop over images."""

from __future__ import annotations

import math

import pytest
import torch

from methods.parts.ops.masking import cells_to_tokens, mask_count, select_cells, uncertain_cells

COUNTS = {7: (5, 10, 15, 20, 25), 14: (20, 40, 59, 79, 98), 28: (79, 157, 236, 314, 392)}


@pytest.mark.parametrize("side", COUNTS)
def test_counts_of_the_card(side: int) -> None:
    noise = torch.rand(2, side * side, generator=torch.Generator().manual_seed(side))
    for tenths, expected in enumerate(COUNTS[side], start=1):
        assert mask_count(side * side, tenths / 10) == expected
        assert select_cells(None, noise, tenths / 10).sum(1).tolist() == [expected, expected]


def test_count_is_safe_against_round_off() -> None:
    assert 100 * 0.07 > 7
    assert mask_count(100, 0.07) == 7
    assert [mask_count(49, r) for r in (0.0, 1e-4, 1.0)] == [0, 1, 49]
    assert all(mask_count(n, k / n) == k for n in range(1, 60) for k in range(n + 1))


def test_two_by_two_case_of_the_card() -> None:
    v = torch.zeros(1, 64, 64)
    v[0, ::32, ::32] = torch.tensor([[0.5, 0.2], [0.21, 0.7]])
    noise = torch.tensor([[[0.1, 0.9], [0.3, 0.8]]])
    uncertain = uncertain_cells(v, 2, 0.2, 0.7)
    assert uncertain.tolist() == [[[True, False], [True, False]]]
    assert select_cells(uncertain, noise, 0.5).tolist() == [[[True, False], [True, False]]]
    assert select_cells(None, noise, 0.5).tolist() == [[[False, True], [False, True]]]


def test_only_the_top_left_pixel_counts() -> None:
    v = torch.full((1, 48, 96), 0.5)
    v[0, ::16, ::24] = 0.0
    assert uncertain_cells(v, (3, 4), 0.2, 0.7).count_nonzero() == 0
    nearest = torch.rand(2, 50, 30, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(nearest[:, None], size=(7, 7), mode="nearest")[:, 0]
    assert torch.equal(uncertain_cells(nearest, 7, 0.3, 0.6), (expected > 0.3) & (expected < 0.6))


def test_selection_equals_sorting_each_image_alone() -> None:
    g = torch.Generator().manual_seed(0)
    noise, uncertain = torch.rand(6, 49, generator=g), torch.rand(6, 49, generator=g) < 0.3
    uncertain[1], uncertain[2] = False, True
    found = select_cells(uncertain, noise, 0.4)
    for b in range(6):
        score = [(float(noise[b, i]) + float(uncertain[b, i]), i) for i in range(49)]
        chosen = {i for _, i in sorted(score, reverse=True)[: math.ceil(49 * 0.4)]}
        assert set(found[b].nonzero()[:, 0].tolist()) == chosen
        one = slice(b, b + 1)
        assert torch.equal(found[one], select_cells(uncertain[one], noise[one], 0.4))
    assert torch.equal(found[1], select_cells(None, noise[1:2], 0.4)[0])


def test_masked_share_of_the_card() -> None:
    noise = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    tokens = cells_to_tokens(select_cells(None, noise, 0.4), 4, (28, 28))
    assert tokens.shape == (3, 784)
    assert tokens.sum(1).tolist() == [320, 320, 320]


def test_cells_cover_their_tokens() -> None:
    mask = torch.tensor([[[True, False, False], [False, True, True]]])
    tokens = cells_to_tokens(mask, 2, (3, 5)).view(3, 5)
    assert tokens.int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    with pytest.raises(ValueError, match="do not cover"):
        cells_to_tokens(mask, 64, (3, 5))
    with pytest.raises(ValueError, match="do not cover"):
        cells_to_tokens(mask, 2, (5, 5))
