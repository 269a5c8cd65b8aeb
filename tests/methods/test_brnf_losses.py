"""BRNF's gate, refined seed, losses and samples. Numbers of brnf.md section 8."""

from __future__ import annotations

import math

import pytest
import torch

from methods.brnf.density import class_likelihood, class_posterior
from methods.brnf.flow import Flow
from methods.brnf.losses import bank_contrast, calibration_loss, guidance_loss
from methods.brnf.sampling import density_weights, sample_features
from methods.brnf.seeds import gated_seed, likelihood_gate


@pytest.mark.parametrize(("kappa", "share"), [(1.0, 0.1587), (1.5, 0.0668), (2.0, 0.0228)])
def test_a_hard_gate_removes_the_lower_tail(kappa, share):
    """brnf.md 8.8, on the quantiles of a Gaussian."""
    uniform_N = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    score_N = -1.4 + 0.3 * math.sqrt(2) * torch.erfinv(2 * uniform_N - 1)
    label_N = torch.ones(100_000, dtype=torch.int64)
    mean_K, std_K = torch.tensor([9.0, -1.4]), torch.tensor([9.0, 0.3])
    hard_N = likelihood_gate(score_N, label_N, mean_K, std_K, kappa, softness=0)
    assert set(hard_N.unique().tolist()) == {0.0, 1.0}
    assert 1 - float(hard_N.mean()) == pytest.approx(share, abs=1e-4)
    soft_N = likelihood_gate(score_N, label_N, mean_K, std_K, kappa)
    assert torch.equal(soft_N > 0.5, score_N > -1.4 - kappa * mean_K.new_tensor(0.3).double())


def test_gate_by_hand():
    mean_K, std_K = torch.tensor([0.0, -1.0, 2.0]), torch.tensor([1.0, 0.5, 0.2])
    score_N = torch.tensor([-1.5, -1.375, 1.8, 1.85, -50.0])
    label_N = torch.tensor([1, 1, 2, 2, 255])
    sigmoid = [1 / (1 + math.exp(-x)) for x in (0.0, 1.0, 0.0, 1.0)]
    found = likelihood_gate(score_N, label_N, mean_K, std_K)
    assert found.tolist() == pytest.approx([*sigmoid, 1.0], abs=1e-5)
    wide = likelihood_gate(score_N, label_N, mean_K, std_K, kappa=0.0, softness=1.0)
    assert float(wide[0]) == pytest.approx(1 / (1 + math.exp(1.0)), abs=1e-6)
    equal = likelihood_gate(torch.tensor([-1.1, -1.0, -0.9]), torch.ones(3, dtype=torch.int64), mean_K, torch.zeros(3))
    assert equal.tolist() == [0.0, 0.5, 1.0], "without a deviation the mean divides"
    assert likelihood_gate(torch.zeros(0), torch.zeros(0, dtype=torch.int64), mean_K, std_K).shape == (0,)


def test_refined_seed_by_hand():
    """Background, 1, 2 at four places."""
    seed_KN = torch.tensor([[0.2, 0.9, 0.5, 0.3], [0.8, 0.1, 0.5, 0.7], [0.6, 0.0, 0.4, 0.1]])
    gate_N, label_N = torch.tensor([0.5, 0.1, 0.1, 0.0]), torch.tensor([1, 0, 255, 1])
    found = gated_seed(seed_KN.view(1, 3, 2, 2), gate_N.view(1, 2, 2), label_N.view(1, 2, 2)).view(3, 4)
    expected = torch.tensor([[0.4, 0.9, 0.5, 0.9], [0.4, 0.1, 0.5, 0.0], [0.6, 0.0, 0.4, 0.1]])
    torch.testing.assert_close(found, expected)
    open_gate = gated_seed(seed_KN.view(1, 3, 2, 2), torch.ones(1, 2, 2), label_N.view(1, 2, 2)).view(3, 4)
    torch.testing.assert_close(open_gate[1:], seed_KN[1:])
    torch.testing.assert_close(open_gate[0], 1 - seed_KN[1:].amax(dim=0))


def test_calibration_by_hand_and_its_gradient():
    cam_NK = torch.tensor([[0.5, 0.2, 0.0], [0.0, 1.0, 0.0], [0.3, 0.3, 0.3]], requires_grad=True)
    posterior_NK = torch.tensor([[0.9, 0.1, 0.0], [0.79, 0.21, 0.0], [0.1, 0.1, 0.8]], requires_grad=True)
    loss = calibration_loss(cam_NK, posterior_NK)
    assert loss.item() == pytest.approx((0.4 + 0.1 + 0.0 + 0.2 + 0.2 + 0.5) / (3 * 2), abs=1e-6)
    loss.backward()
    assert posterior_NK.grad is None
    expected = torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, -1.0]]) / 6
    torch.testing.assert_close(cam_NK.grad, expected)
    assert calibration_loss(cam_NK, posterior_NK, gamma=0.99).item() == 0.0
    assert float(calibration_loss(posterior_NK.detach(), posterior_NK)) == 0.0
    assert float(calibration_loss(torch.zeros(0, 3), torch.zeros(0, 3))) == 0.0


def test_calibration_does_not_reach_the_flow():
    """brnf.md 8.9: d L_cal / d flow = 0."""
    torch.manual_seed(0)
    flow, means_KD = Flow(6, hidden=8), torch.nn.Parameter(torch.randn(2, 6))
    posterior_NK = class_posterior(flow(torch.randn(20, 6))[0], means_KD, torch.ones(20, 2))
    cam_NK = torch.rand(20, 2, requires_grad=True)
    calibration_loss(cam_NK, posterior_NK, gamma=0.0).backward()
    assert float(cam_NK.grad.abs().sum()) > 0
    assert means_KD.grad is None
    assert all(parameter.grad is None for parameter in flow.parameters())


def test_guidance_by_hand_and_its_gradient():
    proto = torch.tensor([[[[0.1, 0.2]], [[0.9, 0.4]], [[0.7, 0.7]]]], requires_grad=True)
    seed = torch.tensor([[[[0.3, 0.2]], [[0.4, 0.8]], [[0.0, 0.0]]]], requires_grad=True)
    valid = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    valid[..., 1] *= torch.tensor([1.0, 0.0, 0.0])[None, :, None]
    loss = guidance_loss(proto, seed, valid)
    assert loss.item() == pytest.approx((0.2 + 0.5 + 0.0) / 3, abs=1e-6)
    loss.backward()
    assert seed.grad is None
    assert proto.grad[0, 2].tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(proto.grad[0, :2, 0, 0], torch.tensor([-1.0, 1.0]) / 3)
    assert guidance_loss(proto, seed, valid * 0).item() == 0.0
    everywhere = guidance_loss(proto, seed, torch.ones(1, 3, 1, 1)).item()
    assert everywhere == pytest.approx((proto - seed).abs().mean().item(), abs=1e-6)


def test_contrast_of_equal_cosines_and_of_opposites():
    """brnf.md 8.7."""
    bank_KMD = torch.zeros(21, 1, 4)
    bank_KMD[..., 0] = 1.0
    anchor_AD, label_A = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([5])
    equal = bank_contrast(anchor_AD, label_A, bank_KMD, torch.ones(21, 1))
    assert float(equal) == pytest.approx(math.log(21), abs=1e-5)
    assert float(equal) == pytest.approx(3.0445, abs=1e-4)
    apart = bank_KMD.roll(1, dims=2)
    apart[5] = bank_KMD[5]
    far = bank_contrast(anchor_AD, label_A, apart, torch.ones(21, 1))
    assert float(far) == pytest.approx(9.08e-4, abs=1e-6)


def test_contrast_against_loops_with_empty_places():
    generator = torch.Generator().manual_seed(4)
    bank = torch.nn.functional.normalize(torch.randn(3, 4, 5, generator=generator), dim=2)
    weight = torch.rand(3, 4, generator=generator) + 0.5
    weight[0, 2:] = 0.0
    weight[2] = 0.0
    anchors = torch.nn.functional.normalize(torch.randn(4, 5, generator=generator), dim=1).requires_grad_()
    labels, tau = torch.tensor([0, 1, 1, 2]), 0.2
    losses = []
    for q, k in zip(anchors.detach(), labels.tolist(), strict=True):
        places = [m for m in range(4) if weight[k, m] > 0]
        negatives = sum(
            math.exp(float(q @ bank[j, m]) / tau) for j in range(3) if j != k for m in range(4) if weight[j, m] > 0
        )
        terms = [
            float(weight[k, m]) * -math.log(1 / (1 + negatives / math.exp(float(q @ bank[k, m]) / tau))) for m in places
        ]
        if places:
            losses.append(sum(terms) / len(places))
    bank[2], bank[0, 2:] = math.nan, math.inf
    bank.requires_grad_()
    loss = bank_contrast(anchors, labels, bank, weight, tau)
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    loss.backward()
    assert bank.grad is None, "brnf.md 8.9: d L_nce / d bank = 0"
    assert bool(anchors.grad.isfinite().all())
    assert torch.equal(anchors.grad[3], torch.zeros(5)), "its class has no entries"
    assert bool((anchors.grad[:3].norm(dim=1) > 0).all())


def test_contrast_without_anchors_or_without_other_classes_is_zero():
    bank, weight = torch.ones(2, 3, 4) / 2, torch.ones(2, 3)
    none = torch.zeros(0, 4, requires_grad=True)
    loss = bank_contrast(none, torch.zeros(0, dtype=torch.int64), bank, weight)
    loss.backward()
    assert loss.item() == 0.0
    weight[1] = 0.0
    anchor = torch.tensor([[1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    alone = bank_contrast(anchor, torch.tensor([0]), bank, weight)
    alone.backward()
    assert alone.item() == 0.0
    assert torch.equal(anchor.grad, torch.zeros(1, 4))


def flow_and_means(dim: int = 16) -> tuple[Flow, torch.Tensor]:
    torch.manual_seed(1)
    return Flow(dim, hidden=16), torch.randn(3, dim)


def test_samples_are_the_most_likely_draws():
    flow, means_KD = flow_and_means()
    eps_KMD = torch.randn(3, 40, 16)
    found_KkD, score_Kk = sample_features(flow, means_KD, eps_KMD, 0.5, 8)
    assert found_KkD.shape == (3, 8, 16)
    assert not found_KkD.requires_grad
    torch.testing.assert_close(found_KkD.norm(dim=2), torch.ones(3, 8))
    for k in range(3):
        z_MD = means_KD[k] + 0.5 * eps_KMD[k]
        with torch.no_grad():
            a_MD, inverse_M = flow.inverse(z_MD)
            again_MD, logdet_M = flow(a_MD)
            likelihood_MK = class_likelihood(again_MD, logdet_M, means_KD)
        torch.testing.assert_close(logdet_M, -inverse_M, atol=1e-4, rtol=0)
        own = likelihood_MK[:, k].masked_fill(likelihood_MK.argmax(dim=1) != k, -math.inf)
        best = own.topk(8)
        torch.testing.assert_close(score_Kk[k], best.values, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(found_KkD[k], torch.nn.functional.normalize(a_MD[best.indices], dim=1))


def test_without_spread_every_sample_is_the_mode():
    flow, means_KD = flow_and_means()
    found, score = sample_features(flow, means_KD, torch.randn(3, 5, 16), 0.0, 5)
    torch.testing.assert_close(found, found[:, :1].expand(-1, 5, -1))
    torch.testing.assert_close(score, score[:, :1].expand(-1, 5))


def test_draws_of_another_class_and_draws_that_are_not_finite_are_rejected():
    flow, means_KD = flow_and_means()
    eps_KMD = torch.zeros(3, 4, 16)
    eps_KMD[0, 0] = 2.0 * (means_KD[1] - means_KD[0])
    eps_KMD[2, 1] = math.nan
    found, score = sample_features(flow, means_KD, eps_KMD, 0.5, 4)
    assert [(row == -math.inf).sum().item() for row in score] == [1, 0, 1]
    assert bool(found.isfinite().all())
    assert bool((score[:, :3] > -math.inf).all())
    assert torch.equal(found[2, 3], torch.zeros(16))
    torch.testing.assert_close(found[0].norm(dim=1), torch.ones(4))
    with pytest.raises(ValueError, match="5 of 4 draws"):
        sample_features(flow, means_KD, eps_KMD, 0.5, 5)


def test_weights_of_samples():
    score_KM = torch.tensor([[0.0, math.log(3) * 0.8, -math.inf], [1.0, 1.0, 1.0], [-math.inf] * 3])
    found = density_weights(score_KM, 16)
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
