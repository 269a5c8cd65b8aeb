"""A8 against its formula: hand-made pictures, the sum over all pairs, and the card's gradient."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from methods.parts.ops.energy import dense_energy_loss, exact_energy, gaussian_sum

REAL = os.environ.get("WSSS_REAL_DATA")


def picture(size: int, labels: int = 4, seed: int = 0, images: int = 1):
    """Smooth colour fields with edges, logits of a token grid, and labels of which a tenth is ignored."""
    rng = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(images, 3, 4, 4, generator=rng)
    pixels = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 255).floor()
    pixels[..., size // 3 : size // 2] = (pixels[..., size // 3 : size // 2] * 0.3).floor()
    side = size // (16 if size > 100 else 8)
    logits = 2 * torch.randn(images, labels, side, side, generator=rng)
    label = torch.randint(labels, (images, size, size), generator=rng)
    label[torch.rand(images, size, size, generator=rng) < 0.1] = 255
    return logits.requires_grad_(), pixels, label


def with_gradient(loss, logits):
    (gradient,) = torch.autograd.grad(loss, logits)
    return float(loss.detach()), gradient


def two_pixels(colour: float):
    """A 2x4 image whose two half-size pixels have uniform shares over two labels, `colour` levels apart."""
    pixels = torch.zeros(1, 3, 2, 4)
    pixels[:, 0, :, 2:] = colour
    return torch.zeros(1, 2, 2, 4, requires_grad=True), pixels, torch.zeros(1, 2, 4, dtype=torch.int64)


@pytest.mark.parametrize("loss", [exact_energy, dense_energy_loss, lambda *a: dense_energy_loss(*a, size=99)])
@pytest.mark.parametrize("colour", [0.0, 15.0, 200.0])
def test_two_pixels_by_hand(loss, colour):
    """Two pixels one step (of 50) apart: AQ = .5 (1 + k), gate .5, so L = -1e-7 * 2 pixels * 2 labels * .125 (1+k)."""
    k = math.exp(-0.5 * (1 / 50**2 + colour**2 / 15**2))
    args = two_pixels(colour)
    found = float(loss(*args).detach())
    assert found == pytest.approx(-1e-7 * 4 * 0.5 * 0.5 * 0.5 * (1 + k), rel=1e-5)


def test_ignored_pixels_are_asked_fully_and_padding_not_at_all():
    logits, pixels, label = two_pixels(0.0)
    k = math.exp(-0.5 / 50**2)
    label[..., :2] = 255
    ignored = float(dense_energy_loss(logits, pixels, label, size=99).detach())
    assert ignored == pytest.approx(-1e-7 * 2 * 0.25 * (1 + k) * (1.0 + 0.5), rel=1e-5)
    content = torch.tensor([True, True, False, False]).expand(1, 2, 4)
    padded = float(dense_energy_loss(logits, pixels, torch.zeros_like(label), content, size=99).detach())
    assert padded == pytest.approx(-1e-7 * 2 * 0.5 * 0.5 * 0.5, rel=1e-5), "only the real pixel, with itself"


@pytest.mark.parametrize("size", [(8, 8), (20, 33), (47, 46)])
def test_small_images_are_summed_over_all_pairs_by_default(size):
    """Noise is where a part of the pixels tells least of the others: at 32 pixels every second gave .36 of the sum."""
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (2, 3, *size), generator=rng).float()
    logits = torch.randn(2, 4, *size, generator=rng).requires_grad_()
    label = torch.randint(4, (2, *size), generator=rng)
    label[:, :3] = 255
    content = torch.ones_like(label, dtype=torch.bool)
    content[1, :, -4:] = False
    found, gradient = with_gradient(dense_energy_loss(logits, pixels, label, content), logits)
    expected, slope = with_gradient(exact_energy(logits, pixels, label, content), logits)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("size", [48, 47])
def test_all_pairs_equal_the_formula_in_value_and_gradient(size):
    logits, pixels, label = picture(size, images=2)
    content = torch.ones_like(label, dtype=torch.bool)
    content[0, :, : size // 3] = False
    found, gradient = with_gradient(dense_energy_loss(logits, pixels, label, content, size=size), logits)
    expected, slope = with_gradient(exact_energy(logits, pixels, label, content), logits)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))


def test_the_gradient_is_the_cards_and_not_the_true_one():
    """dL/dP_ik = -2e-7/B ROI_i gate_i (AQ)_ik, through softmax and both resizes."""
    logits, pixels, label = picture(32)
    _, found = with_gradient(exact_energy(logits, pixels, label), logits)
    shares = F.avg_pool2d(F.interpolate(logits.double(), size=(32, 32), mode="bilinear").softmax(1), 2)
    p_KN = shares[0].flatten(1)
    colour_N3 = pixels[0, :, ::2, ::2].flatten(1).T.double()
    place_N2 = torch.cartesian_prod(torch.arange(16.0), torch.arange(16.0)).double()
    kernel = torch.exp(
        -0.5 * (torch.cdist(place_N2, place_N2).square() / 2500 + torch.cdist(colour_N3, colour_N3).square() / 225)
    )
    gate_N = (1 - p_KN.detach().amax(0)).clamp(min=0)
    gate_N[label[0, ::2, ::2].flatten() == 255] = 1.0
    slope_KN = -2e-7 * gate_N * (p_KN.detach() @ kernel)
    (expected,) = torch.autograd.grad((p_KN * slope_KN).sum(), logits, retain_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-14)
    (true,) = torch.autograd.grad(-1e-7 * (p_KN * (1 - p_KN.amax(0)) * (p_KN @ kernel)).sum(), logits)
    assert (true - found).norm() > 0.05 * found.norm()


@pytest.mark.parametrize(("size", "value", "slope"), [(160, 0.03, 0.2), (448, 0.03, 0.2)])
def test_the_default_is_near_the_sum_over_all_pairs(size, value, slope):
    """Against all pairs at 160; at 448, where those take half a minute, against 7 times as many."""
    logits, pixels, label = picture(size)
    found, gradient = with_gradient(dense_energy_loss(logits, pixels, label), logits)
    expected, full = with_gradient(dense_energy_loss(logits, pixels, label, size=80), logits)
    assert found == pytest.approx(expected, rel=value)
    assert (gradient - full).norm() < slope * full.norm()


def test_images_do_not_see_each_other():
    logits, pixels, label = picture(64, images=3)
    together = float(dense_energy_loss(logits, pixels, label).detach())
    parts = zip(logits.split(1), pixels.split(1), label.split(1), strict=True)
    alone = [float(dense_energy_loss(*part).detach()) for part in parts]
    assert together == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_certain_pixels_and_agreeing_pixels():
    _, pixels, label = picture(32)
    label = torch.zeros_like(label)
    sure = torch.zeros(1, 4, 4, 4)
    sure[:, 0] = 100.0
    assert float(dense_energy_loss(sure, pixels, label)) == 0.0, "certain pixels are not asked"
    flat, noisy = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    flat[:, 0] = 2.0
    noisy[:, 0, ::2], noisy[:, 0, 1::2] = 2.0, -2.0
    plain = torch.full_like(pixels, 128.0)
    energies = [float(dense_energy_loss(x, plain, label + 255)) for x in (flat, noisy)]
    assert energies[0] < energies[1] < 0, "agreement lowers the energy"


def test_gaussian_sum_of_one_feature():
    asked, summed = torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[0.0], [1.0], [3.0]]])
    values = torch.tensor([[[1.0, 0.0], [1.0, 2.0], [0.0, 1.0]]])
    k = [[math.exp(-0.5 * (a - b) ** 2) for b in (0, 1, 3)] for a in (0, 2)]
    expected = torch.tensor([[[k[i][0] + k[i][1], 2 * k[i][1] + k[i][2]] for i in range(2)]])
    torch.testing.assert_close(gaussian_sum(asked, summed, values), expected)


def test_autocast_changes_nothing():
    logits, pixels, label = picture(48)
    plain = float(dense_energy_loss(logits, pixels, label).detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(dense_energy_loss(logits, pixels, label).detach()) == plain


def test_bad_sizes_are_refused():
    logits, pixels, label = picture(32)
    for loss in (dense_energy_loss, exact_energy):
        with pytest.raises(ValueError, match=r"labels \(31, 32\) differ"):
            loss(logits, pixels, label[:, 1:])
        with pytest.raises(ValueError, match="no half size"):
            loss(logits, pixels[..., :1], label[..., :1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_equals_cpu():
    logits, pixels, label = picture(160, images=2)
    expected, slope = with_gradient(dense_energy_loss(logits, pixels, label), logits)
    there = logits.detach().cuda().requires_grad_()
    found, gradient = with_gradient(dense_energy_loss(there, pixels.cuda(), label.cuda()), there)
    assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(gradient.cpu(), slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))


@pytest.mark.skipif(not REAL, reason="set WSSS_REAL_DATA to a folder with real photos")
def test_real_photos_at_160():
    """Independent logits at every token are the worst case; with smooth ones the gradient is within 9 %."""
    for name in sorted((Path(str(REAL)) / "msrc21/JPEGImages").iterdir())[:200:60]:
        logits, _, label = picture(160, labels=21)
        image = Image.open(name).convert("RGB").resize((160, 160), Image.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 160, 160, 3)
        pixels = pixels.permute(0, 3, 1, 2).float()
        found, gradient = with_gradient(dense_energy_loss(logits, pixels, label), logits)
        expected, full = with_gradient(dense_energy_loss(logits, pixels, label, size=160), logits)
        assert found == pytest.approx(expected, rel=0.03)
        assert (gradient - full).norm() < 0.2 * full.norm()
