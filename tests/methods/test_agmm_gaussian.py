"""AGMM's centres and Gaussian maps: the self-checks of agmm.md 8, a plain restatement, and odd batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from methods.agmm.gaussian import DISTANCES, VARIANCES, centroids, distances, gaussian, presence, presence_of

K, D = 4, 6


def plain_centroids(features, label, num_labels, align_corners=False):
    """agmm.md 2.3 as published: upsample, then a loop over images and classes with boolean indexing."""
    up = F.interpolate(features, label.shape[-2:], mode="bilinear", align_corners=align_corners)
    out = torch.zeros(len(features), num_labels, features.shape[1])
    for b in range(len(features)):
        for k in range(num_labels):
            here = label[b] == k
            if here.any():
                out[b, k] = up[b][:, here].sum(1) / (here.sum() + 1e-6)
    return out


def plain_gaussian(features, centres, present, content):
    """agmm.md 2.3 as published: the broadcast difference (B,K,D,h,w)."""
    valid = F.interpolate(content[:, None].float(), features.shape[-2:], mode="bilinear", align_corners=False)
    d = (features[:, None] - centres[..., None, None]).abs().mean(2) * present[:, :, None, None] * valid
    up = F.interpolate(torch.exp(-(d**2)), content.shape[-2:], mode="bilinear", align_corners=False)
    return up * present[:, :, None, None]


@pytest.fixture
def case():
    """Two images of 21x18 pixels on 6x5 cells; the second has no label, and padding on the right and below."""
    rng = torch.Generator().manual_seed(0)
    label = torch.full((2, 21, 18), 255)
    label[0, 3:6, 2:9], label[0, 15, 10], label[0, 20, 17] = 1, 3, 3
    content = torch.ones(2, 21, 18, dtype=torch.bool)
    content[1, 12:], content[1, :, 11:] = False, False
    features = torch.rand(2, D, 6, 5, generator=rng).requires_grad_()
    return features, label, content


def test_self_check_2_one_gaussian():
    """f = (.5, 1.5), the centre (.5, .5), class 1 absent, one pixel: d = .5 and G = (.778801, 0)."""
    features = torch.tensor([0.5, 1.5]).view(1, 2, 1, 1)
    centre = torch.tensor([[[0.5, 0.5], [0.0, 0.0]]])
    out = gaussian(features, centre, torch.tensor([[1.0, 0.0]]), torch.ones(1, 1, 1, dtype=torch.bool))
    assert out.flatten().tolist() == pytest.approx([0.778801, 0.0], abs=1e-6)


def test_presence_reads_labels_alone(case):
    _, label, _ = case
    onehot, present = presence(label, K)
    assert present.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0]]
    assert onehot.sum((2, 3)).tolist() == [[0, 21, 0, 2], [0, 0, 0, 0]]
    torch.testing.assert_close(presence_of(label, K), present)
    torch.testing.assert_close(presence_of(torch.where(label == 255, K, label), K), present)
    torch.testing.assert_close(presence_of(torch.where(label == 255, -1, label), K), present)


@pytest.mark.parametrize("align_corners", [False, True])
def test_centroids_are_those_of_the_upsampled_map(case, align_corners):
    features, label, _ = case
    ours = centroids(features, label, K, align_corners=align_corners)
    theirs = plain_centroids(features, label, K, align_corners)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    grads = [torch.autograd.grad((c * weight).sum(), features)[0] for c in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
    assert not ours[1].any()
    assert not ours[0, 0].any()


def test_centroids_at_the_size_of_the_labels_are_plain_means():
    features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    label = torch.tensor([[[0, 0], [1, 2]]])
    assert centroids(features, label, 2).flatten().tolist() == pytest.approx([2.0, 5.0], abs=1e-5)


def test_gaussian_is_that_of_the_broadcast_difference(case):
    features, label, content = case
    _, present = presence(label, K)
    centre = centroids(features, label, K)
    ours, theirs = gaussian(features, centre, present, content), plain_gaussian(features, centre, present, content)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(g.square().sum(), features, retain_graph=True)[0] for g in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
    assert float(grads[0].abs().sum()) > 0
    assert not ours[1].any(), "an image without labels has no map"


def test_padding_does_not_enter_a_map(case):
    """A cell of padding has d = 0 and so G = 1, whatever its feature is; real ones far from it do not change."""
    features, label, content = case
    label, content = label.clone(), content.clone()
    content[0, 12:] = False
    label[0, 12:] = 255
    _, present = presence(label, K)
    centre = centroids(features, label, K)
    first = gaussian(features, centre, present, content)
    other = features.detach().clone()
    other[0, :, 4:] += 100.0
    second = gaussian(other, centre, present, content)
    torch.testing.assert_close(first[0, 1], second[0, 1])
    torch.testing.assert_close(first[0, 1, 18:], torch.ones(3, 18))


def test_the_spread_is_a_constant_weighted_by_the_network():
    """Two cells with d = 1 and 3: unweighted sigma^2 = 5; with probabilities .75 and .25, (.75 + 2.25)/1 = 3."""
    features = torch.tensor([[[[1.0, 3.0]]]]).requires_grad_()
    centre, present = torch.zeros(1, 1, 1), torch.ones(1, 1)
    content = torch.ones(1, 1, 2, dtype=torch.bool)
    probs = torch.tensor([[[[0.75, 0.25]]]])
    plain = gaussian(features, centre, present, content, variance="unweighted")
    assert plain.flatten().tolist() == pytest.approx([math.exp(-0.1), math.exp(-0.9)], rel=1e-5)
    weighted = gaussian(features, centre, present, content, variance="weighted", probs_BKHW=probs)
    assert weighted.flatten().tolist() == pytest.approx([math.exp(-1 / 6), math.exp(-9 / 6)], rel=1e-5)
    weighted[0, 0, 0, 0].backward()
    assert features.grad is not None
    # d/df of exp(-f^2/6) at f = 1, sigma held constant.
    assert features.grad.flatten().tolist() == pytest.approx([-1 / 3 * math.exp(-1 / 6), 0.0], rel=1e-5)
    with pytest.raises(ValueError, match="needs the probabilities"):
        gaussian(features, centre, present, content, variance="weighted")


def test_sharpness_is_one_number_or_one_of_each_class():
    features, content = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)
    centre, present = torch.zeros(1, 2, 1), torch.ones(1, 2)
    one = gaussian(features, centre, present, content, sharpness=3.0)
    assert one.flatten().tolist() == pytest.approx([math.exp(-3)] * 2, rel=1e-6)
    own = torch.tensor([1.0, 3.0], requires_grad=True)
    each = gaussian(features, centre, present, content, variance="learned", sharpness=own)
    assert each.flatten().tolist() == pytest.approx([math.exp(-1), math.exp(-3)], rel=1e-6)
    each.sum().backward()
    assert own.grad is not None
    assert own.grad.tolist() == pytest.approx([-math.exp(-1), -math.exp(-3)], rel=1e-6)
    absent_first = torch.tensor([[0.0, 1.0]])
    each = gaussian(features, centre, absent_first, content, variance="learned", sharpness=own)
    assert each.flatten().tolist() == pytest.approx([0.0, math.exp(-3)], rel=1e-6)


def test_distances_by_hand():
    """f = (3, 4), centre (0, 4): mean absolute 1.5, mean squared 4.5, 1 - cosine = .2."""
    features, centre = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([[[0.0, 4.0]]])
    found = [float(distances(features, centre, how)) for how in ("l1", "l2", "cosine")]
    assert found == pytest.approx([1.5, 4.5, 0.2], abs=1e-6)
    with pytest.raises(ValueError, match="'chord', one of l1, l2, cosine"):
        distances(features, centre, "chord")


@pytest.mark.parametrize("how", DISTANCES)
def test_autocast_changes_no_bit(case, how):
    features, label, content = case
    _, present = presence(label, K)

    def made():
        centre = centroids(features, label, K)
        return centre, distances(features, centre, how), gaussian(features, centre, present, content, distance=how)

    plain = made()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(plain, made(), strict=True))


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_batch_without_labels_gives_empty_maps(variance):
    features = torch.rand(2, D, 5, 5, requires_grad=True)
    label = torch.full((2, 17, 17), 255)
    content = torch.zeros(2, 17, 17, dtype=torch.bool)
    _, present = presence(label, K)
    centre = centroids(features, label, K)
    maps = gaussian(features, centre, present, content, variance=variance, probs_BKHW=torch.rand(2, K, 17, 17))
    assert maps.shape == (2, K, 17, 17)
    assert not maps.any()
    assert not centre.any()


@pytest.mark.parametrize("variance", ["weighted", "unweighted"])
def test_an_image_of_padding_alone_stays_finite(variance):
    features = torch.rand(1, D, 5, 5, requires_grad=True)
    present, content = torch.ones(1, K), torch.zeros(1, 17, 17, dtype=torch.bool)
    maps = gaussian(
        features, torch.rand(1, K, D), present, content, variance=variance, probs_BKHW=torch.rand(1, K, 17, 17)
    )
    maps.sum().backward()
    assert torch.isfinite(maps).all()
    assert torch.isfinite(features.grad).all()
