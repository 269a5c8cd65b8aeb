"""The gated CRF loss: the self-checks of sparse_baselines.md 3.6, and an unfolded restatement."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from methods.gatedcrf.losses import gated_crf_loss

ALIKE, UNLIKE, TORN = ((1.0, 0.0),) * 2, ((1.0, 0.0), (0.0, 1.0)), ((0.5, 0.5),) * 2


def logits_of(rows):
    """Logits (1,2,1,n) whose softmax is this to float32."""
    return torch.tensor(rows).clamp(1e-30, 1).log().T[None, :, None]


def plain(logits, images, kernels, radius, source=None, target=None):
    """The published structure: features and probabilities unfolded into windows (B,C,window,h*w)."""
    b, _, h, w = logits.shape
    side = 2 * radius + 1
    y = logits.softmax(1)
    grid = torch.stack(torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij"))
    features = {"xy": grid.expand(b, 2, h, w), "rgb": F.adaptive_avg_pool2d(images, (h, w))}

    def windows(x):
        return F.unfold(x, side, padding=radius).view(b, x.shape[1], side * side, h, w)

    near = 0
    for weight, sigma_xy, sigma_rgb in kernels:
        exponent = 0
        for name, sigma in (("xy", sigma_xy), ("rgb", sigma_rgb)):
            if sigma:
                f = features[name] / sigma
                exponent = exponent + (windows(f) - f[:, :, None]).square().sum(1)
        near = near + weight * (-0.5 * exponent).exp()
    near = near.clone()
    near[:, side * side // 2] = 0

    def cells(mask):
        return (F.adaptive_avg_pool2d(mask[:, None].float(), (h, w)) >= 1).float()

    if source is not None:
        near = near * windows(cells(source))[:, 0]
    if target is not None:
        near = near * cells(target)
    count = b * h * w
    for mask in (source, target):
        if mask is not None:
            count = max(1.0, float(cells(mask).sum()))
    return (near.sum() - (near * (windows(y) * y[:, :, None]).sum(1)).sum()) / count


@pytest.mark.parametrize(("rows", "value"), [(UNLIKE, 0.986207), (ALIKE, 0.0), (TORN, 0.493104)])
def test_self_check_1_two_pixels_behind_a_mask(rows, value):
    images, mask = torch.zeros(1, 3, 1, 2), torch.ones(1, 1, 2)
    loss = gated_crf_loss(logits_of(rows), images, kernels=[(1.0, 6.0, None)], radius=1, source_BHW=mask)
    assert float(loss) == pytest.approx(value, abs=1e-6)
    loss = gated_crf_loss(logits_of(rows), images, kernels=[(1.0, 6.0, 0.1)], radius=1, source_BHW=mask)
    assert float(loss) == pytest.approx(value, abs=1e-6)


def test_self_check_2_a_difference_of_colour():
    images = torch.zeros(1, 3, 1, 2)
    images[0, 1, 0, 1] = 0.1
    loss = gated_crf_loss(
        logits_of(UNLIKE), images, kernels=[(1.0, 6.0, 0.1)], radius=1, source_BHW=torch.ones(1, 1, 2)
    )
    assert float(loss) == pytest.approx(0.598165, abs=1e-6)
    assert float(loss) == pytest.approx(math.exp(-1 / 72 - 0.5), rel=1e-5)


@pytest.mark.parametrize(("rows", "value"), [(UNLIKE, 7.937932), (ALIKE, 6.951725), (TORN, 7.444828)])
def test_self_check_3_without_a_mask_the_window_leaves_the_image(rows, value):
    loss = gated_crf_loss(logits_of(rows), torch.zeros(1, 3, 1, 2), kernels=[(1.0, 6.0, 0.1)], radius=1)
    assert float(loss) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("masks", ["none", "source", "target", "both"])
@pytest.mark.parametrize("radius", [1, 5])
def test_it_is_the_unfolded_one(masks, radius):
    """Value and gradient, at another size than the image's, with a window larger than the map."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 4, 7, generator=rng, requires_grad=True)
    images = torch.randn(2, 3, 16, 28, generator=rng)
    source = torch.ones(2, 16, 28)
    source[0, :, 25:], source[1, 10:] = 0, 0
    target = (torch.rand(2, 4, 7, generator=rng) < 0.7).float().repeat_interleave(4, 1).repeat_interleave(4, 2)
    kernels = [(1.0, 6.0, 0.5), (0.3, 3.0, None)]
    given = {
        "source": source if masks in ("source", "both") else None,
        "target": target if masks in ("target", "both") else None,
    }
    ours = gated_crf_loss(
        logits, images, kernels=kernels, radius=radius, source_BHW=given["source"], target_BHW=given["target"]
    )
    theirs = plain(logits, images, kernels, radius, **given)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-7)


def test_masks_stay_as_they_were_and_nan_counts_as_nothing():
    mask = torch.tensor([[[1.0, 0.5, float("nan"), 1.0]]])
    before = mask.clone()
    logits = torch.randn(1, 2, 1, 4)
    loss = gated_crf_loss(logits, torch.zeros(1, 3, 1, 4), kernels=[(1.0, 6.0, None)], radius=1, source_BHW=mask)
    torch.testing.assert_close(mask, before, equal_nan=True, rtol=0, atol=0)
    assert torch.isfinite(loss)


def test_without_a_real_pixel_it_costs_nothing():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = gated_crf_loss(logits, torch.zeros(1, 3, 3, 3), kernels=[(1.0, 6.0, 0.1)], source_BHW=torch.zeros(1, 3, 3))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()
    with pytest.raises(ValueError, match="at least one kernel"):
        gated_crf_loss(logits, torch.zeros(1, 3, 3, 3), kernels=[])
