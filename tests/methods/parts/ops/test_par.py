"""A2 against the numbers of its specification and a restatement with 48 one-hot convolutions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops import par as module
from methods.parts.ops.par import DILATIONS, neighbours, par, par_weights, position_weights

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photo(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours with whole levels, as a photo has."""
    small = rand(batch, 3, height // 6 + 2, width // 6 + 2, seed=seed)
    image = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return (image * 255).floor() / 255


def official_neighbours(maps: Tensor, dilations) -> Tensor:
    """(B,K,H,W) -> (B,K,48,H,W): eight one-hot 3x3 kernels at every dilation on a replicated border."""
    kernels = torch.zeros(8, 1, 3, 3, dtype=maps.dtype)
    for n, (y, x) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]):
        kernels[n, 0, y, x] = 1
    b, k, h, w = maps.shape
    found = []
    for d in dilations:
        padded = F.pad(maps, [d] * 4, mode="replicate").view(b * k, 1, h + 2 * d, w + 2 * d)
        found.append(F.conv2d(padded, kernels, dilation=d).view(b, k, 8, h, w))
    return torch.cat(found, dim=2)


def official_par(image: Tensor, scores: Tensor, iterations: int, dilations) -> Tensor:
    """A2 step by step, with every neighbour tensor written out, in double precision."""
    image, scores = image.double(), scores.double()
    scores = F.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=True)
    views = official_neighbours(image, dilations)
    std = views.std(dim=2, keepdim=True)
    colour = (-(((views - image[:, :, None]).abs() / (std + 1e-8) / 0.3) ** 2)).mean(1, keepdim=True).softmax(2)
    one = torch.ones(8, dtype=torch.float64)
    one[[0, 2, 5, 7]] = math.sqrt(2)
    r = torch.cat([one * d for d in dilations])
    place = (-((r / (r.std() + 1e-8) / 0.3) ** 2)).softmax(0).view(1, 1, -1, 1, 1)
    weights = colour + 0.01 * place
    for _ in range(iterations):
        scores = (official_neighbours(scores, dilations) * weights).sum(2)
    return scores


def test_position_weights_of_the_specification() -> None:
    weights = dict(zip(neighbours(), position_weights(), strict=True))
    table = {1: (0.076453, 0.068260), 2: (0.054413, 0.034576), 4: (0.013961, 0.002276)}
    for d, (straight, diagonal) in table.items():
        for sign in (-1, 1):
            assert weights[0, sign * d] == weights[sign * d, 0] == pytest.approx(straight, abs=5e-7)
            assert weights[sign * d, d] == weights[d, sign * d] == pytest.approx(diagonal, abs=5e-7)
    assert weights[0, 8] == pytest.approx(6.1e-5, abs=1e-6)
    assert weights[8, 8] < 1e-6
    assert all(weights[0, d] < 1e-6 for d in (12, 24))
    assert sum(weights.values()) == pytest.approx(1.0)
    assert len(weights) == 48
    assert (0, 0) not in weights
    distances = torch.tensor([math.hypot(*offset) for offset in neighbours()])
    assert distances.std().item() == pytest.approx(9.9003, abs=5e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_weights_sum_to_101_hundredths(device: str) -> None:
    weights = par_weights(photo(2, 20, 33).to(device))
    assert weights.shape == (2, 48, 20, 33)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1).cpu(), torch.full((2, 20, 33), 1.01), atol=5e-6, rtol=0)


def test_constant_image_gives_equal_shares_plus_position() -> None:
    weights = par_weights(torch.full((1, 3, 9, 9), 0.37))
    expected = torch.tensor([1 / 48 + 0.01 * p for p in position_weights()])
    torch.testing.assert_close(weights, expected.view(1, 48, 1, 1).expand(1, 48, 9, 9), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("iterations", "growth"), [(1, 1.01), (10, 1.10462), (15, 1.16097)])
def test_constant_scores_grow(iterations: int, growth: float) -> None:
    found = par(photo(1, 24, 18), torch.ones(1, 1, 24, 18), iterations)
    torch.testing.assert_close(found, torch.full((1, 1, 24, 18), growth), atol=1e-5, rtol=0)


def test_step_edge_of_the_specification() -> None:
    row = torch.zeros(1, 3, 9, 9)
    row[..., 5:] = 1
    found = par(row, row[:, :1], 1, (1,))[0, 0, 4]
    assert found[3:7].tolist() == pytest.approx([0, 0.0025, 1.0075, 1.01], abs=1e-6)


@pytest.mark.parametrize(
    ("batch", "labels", "height", "width", "iterations", "dilations"),
    [
        (2, 3, 40, 56, 10, DILATIONS),
        (1, 5, 31, 17, 3, DILATIONS),
        (1, 1, 1, 7, 2, DILATIONS),
        (3, 2, 12, 12, 4, (1, 3)),
    ],
)
def test_equals_the_official_form(batch, labels, height, width, iterations, dilations) -> None:
    image, scores = photo(batch, height, width, seed=4), rand(batch, labels, height, width, seed=5)
    found = par(image, scores, iterations, dilations)
    expected = official_par(image, scores, iterations, dilations)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert (found.double() - expected).abs().max() < 2e-5
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9999


def test_scores_of_another_size_are_resized_with_aligned_corners() -> None:
    image, scores = photo(1, 30, 24), rand(1, 2, 10, 8)
    assert (par(image, scores, 2).double() - official_par(image, scores, 2, DILATIONS)).abs().max() < 2e-5
    aligned = F.interpolate(scores, size=(30, 24), mode="bilinear", align_corners=True)
    torch.testing.assert_close(par(image, scores, 0), aligned)


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    image, scores = photo(2, 37, 20), rand(2, 3, 37, 20)
    whole = par(image, scores, 5)
    for size in (1, 500, 2000):
        monkeypatch.setattr(module, "_STRIP", size)
        torch.testing.assert_close(par(image, scores, 5), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("batch", "labels", "height", "width", "dilations"),
    [(2, 3, 40, 56, DILATIONS), (1, 1, 24, 17, (1, 2, 4)), (3, 4, 9, 30, (3,))],
)
def test_the_form_for_other_devices_gives_the_same(batch, labels, height, width, dilations) -> None:
    image, scores = photo(batch, height, width), rand(batch, labels, height, width, seed=1)
    found = module.rings_par(image, scores, 10, dilations)
    torch.testing.assert_close(found, par(image, scores, 10, dilations), rtol=0, atol=5e-6)
    # A border of one colour: variance 0 and shares that are all equal.
    flat = torch.full_like(image, 0.5)
    torch.testing.assert_close(
        module.rings_par(flat, scores, 1, dilations), par(flat, scores, 1, dilations), rtol=0, atol=5e-6
    )


def test_linear_per_channel_and_per_image() -> None:
    image, scores = photo(3, 24, 26), rand(3, 4, 24, 26)
    whole = par(image, scores)
    for b in range(3):
        for k in range(4):
            alone = par(image[b : b + 1], scores[b : b + 1, k : k + 1])
            torch.testing.assert_close(whole[b, k], alone[0, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(par(image, 3 * scores - 1), 3 * whole - 1.01**10, atol=2e-5, rtol=0)


def test_inputs_stay_and_autocast_does_not_matter() -> None:
    image, scores = photo(1, 16, 16).requires_grad_(), rand(1, 2, 16, 16)
    before = scores.clone()
    plain = par(image, scores)
    assert torch.equal(scores, before)
    assert not plain.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(par(image, scores), plain)
    assert par(image, scores.bfloat16()).dtype == torch.float32


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B,3,H,W\)"):
        par(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="dilations"):
        par_weights(torch.zeros(1, 3, 8, 8), ())
