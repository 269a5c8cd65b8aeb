"""AGMM's losses: the self-checks of agmm.md 8, gradients, and odd batches."""

from __future__ import annotations

import math

import pytest
import torch

from methods.agmm.gaussian import centroids, presence
from methods.agmm.losses import class_loss, class_loss_of, gmm_losses, separation_loss


def logits_of(*probabilities):
    """Logits (1,K,1,n) of one row of pixels with these probabilities."""
    return torch.tensor(probabilities).T.log()[None, :, None]


def test_self_check_1_the_sum_quirk():
    """exp(-2^2) with the sum of centres as published, exp(-1) with their mean."""
    features = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    label = torch.tensor([[[0, 1], [2, 2]], [[0, 2], [2, 2]]])
    _, present = presence(label, 2)
    centre = centroids(features, label, 2)
    assert float(separation_loss(centre, present, pool="sum")) == pytest.approx(0.018316, abs=1e-6)
    assert float(separation_loss(centre, present)) == pytest.approx(0.367879, abs=2e-6)
    with pytest.raises(ValueError, match="mean or sum"):
        separation_loss(centre, present, pool="max")


def test_separation_of_less_than_two_classes_is_nothing():
    centre = torch.rand(3, 4, 5, requires_grad=True)
    loss = separation_loss(centre, torch.eye(4)[:1].expand(3, 4))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not centre.grad.any()


def test_separation_counts_pairs_once():
    """Three classes at 0, 1, 3 (one channel), each of one image: mean of exp(-1), exp(-9), exp(-4)."""
    centre = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1) * torch.eye(3)[..., None]
    assert float(separation_loss(centre, torch.eye(3))) == pytest.approx(
        (math.exp(-1) + math.exp(-9) + math.exp(-4)) / 3, rel=1e-5
    )


def gmm_case(pixels):
    content = torch.ones(1, 1, pixels, dtype=torch.bool)
    label = torch.full((1, 1, pixels), 255)
    label[0, 0, 0] = 0
    logits = logits_of(*[(0.8, 0.2)] * pixels).requires_grad_()
    maps = torch.tensor([[0.5], [0.0]]).expand(2, pixels)[None, :, None].clone().requires_grad_()
    return logits, maps, label, torch.tensor([[1.0, 0.0]]), content


@pytest.mark.parametrize("pixels", [1, 2])
def test_self_check_3_the_mixture_loss(pixels):
    """One labelled pixel: L_1 = .45815, L_2 = .34657; an equal pixel without a label changes nothing."""
    first, second = gmm_losses(*gmm_case(pixels))
    assert (float(first.detach()), float(second.detach())) == pytest.approx((0.45815, 0.34657), abs=1e-5)
    assert float((first + second).detach()) == pytest.approx(0.80472, abs=1e-5)


@pytest.mark.parametrize(("detach", "moved"), [(None, (True, True)), ("g", (True, False)), ("p", (False, True))])
def test_gradients_of_the_first_loss_take_the_way_that_is_said(detach, moved):
    logits, maps, *rest = gmm_case(2)
    first, second = gmm_losses(logits, maps, *rest, detach=detach)
    grads = torch.autograd.grad(first, (logits, maps), allow_unused=True, retain_graph=True)
    assert tuple(g is not None and bool(g.any()) for g in grads) == moved
    if detach is None:
        # d/dG of -(1/2)(G ln .8 + (1-G) ln .2) over two pixels.
        assert float(grads[1][0, 0, 0, 0]) == pytest.approx(-0.25 * math.log(4), rel=1e-4)
    later = torch.autograd.grad(second, (logits, maps), allow_unused=True)
    assert later[0] is None
    assert float(later[1][0, 0, 0, 0]) == pytest.approx(-1.0, rel=1e-4)
    with pytest.raises(ValueError, match="none, g, p"):
        gmm_losses(logits, maps, *rest, detach="q")


def test_self_check_4_what_the_image_lacks():
    """y = (1,0,0), P = (.5,.25,.25): -2 ln .75, however many pixels bear a label."""
    logits = logits_of(*[(0.5, 0.25, 0.25)] * 3)
    content = torch.tensor([[[True, True, False]]])
    loss = class_loss(logits, torch.tensor([[1.0, 0.0, 0.0]]), content)
    assert float(loss) == pytest.approx(0.57536, abs=1e-5)
    assert float(class_loss(logits, torch.ones(1, 3), content)) == 0.0
    assert float(class_loss(logits, torch.zeros(1, 3), torch.zeros_like(content))) == 0.0


def test_the_gradient_of_the_class_loss_is_that_of_autograd():
    rng = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 5, 4, 3, generator=rng)).requires_grad_()
    tags = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1, 1, 0, 0]])
    content = torch.rand(2, 4, 3, generator=rng) < 0.7
    plain = -((1.0 - logits.softmax(1) + 1e-6).log() * (1 - tags)[..., None, None]).sum(1)[content].mean()
    ours = class_loss(logits, tags, content)
    torch.testing.assert_close(ours, plain)
    grads = [torch.autograd.grad(2.5 * loss, logits)[0] for loss in (ours, plain)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-7)


def test_autocast_changes_no_bit():
    """Of the losses, and of the class loss as a step reads it."""
    rng = torch.Generator().manual_seed(0)
    logits, features = torch.randn(2, 4, 9, 9, generator=rng), torch.rand(2, 6, 5, 5, generator=rng)
    label = torch.randint(0, 6, (2, 9, 9), generator=rng)
    content, tags = torch.rand(2, 9, 9, generator=rng) < 0.8, torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 1]])
    _, present = presence(label, 4)

    def losses() -> torch.Tensor:
        centre = centroids(features, label, 4)
        maps = logits.sigmoid()
        return torch.stack(
            [
                class_loss(logits, tags, content),
                class_loss_of(logits.log_softmax(1), tags, content),
                *gmm_losses(logits, maps, label, present, content),
                separation_loss(centre, present),
            ]
        )

    plain = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses(), plain)


def test_a_sure_wrong_prediction_stays_finite():
    logits = torch.tensor([[50.0], [-50.0]]).view(1, 2, 1, 1).requires_grad_()
    content, label = torch.ones(1, 1, 1, dtype=torch.bool), torch.ones(1, 1, 1, dtype=torch.int64)
    maps = torch.tensor([[1.0], [0.0]]).view(1, 2, 1, 1).requires_grad_()
    losses = [
        class_loss(logits, torch.tensor([[0.0, 1.0]]), content),
        *gmm_losses(logits, maps, label, torch.ones(1, 2), content),
    ]
    assert float(losses[0].detach()) == pytest.approx(-math.log(1e-6), rel=0.1)
    torch.stack(losses).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(maps.grad).all()


def test_batches_without_labels_or_without_pixels_cost_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    label, content = torch.full((2, 4, 4), 255), torch.zeros(2, 4, 4, dtype=torch.bool)
    for present in (torch.zeros(2, 3), torch.ones(2, 3)):
        maps = torch.rand(2, 3, 4, 4, requires_grad=True)
        losses = gmm_losses(logits, maps, label, present, content)
        assert [float(loss.detach()) for loss in losses] == [0.0, 0.0]
        torch.stack(losses).sum().backward()
        assert torch.isfinite(logits.grad).all()


def test_images_without_labels_dilute_the_first_loss():
    """agmm.md 7.4: their pixels count in the mean and add nothing."""
    logits, maps, label, present, content = gmm_case(1)
    one, _ = gmm_losses(logits, maps, label, present, content)
    none = torch.full_like(label, 255)
    two, _ = gmm_losses(
        torch.cat([logits, logits]),
        torch.cat([maps, maps]),
        torch.cat([label, none]),
        torch.cat([present, torch.zeros_like(present)]),
        torch.cat([content, content]),
    )
    assert float(two.detach()) == pytest.approx(float(one.detach()) / 2, rel=1e-6)
