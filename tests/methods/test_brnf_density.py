"""BRNF's class mixture: likelihood, labels, loss and GMM classifier. Numbers of brnf.md section 8."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from methods.brnf.density import class_likelihood, class_posterior, confident_labels, flow_loss, squared_distances
from methods.brnf.flow import Flow

INF = math.inf


def test_likelihood_against_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    z_ND, means_KD = torch.randn(7, 5, generator=generator) * 3, torch.randn(4, 5, generator=generator)
    logdet_N = torch.randn(7, generator=generator)
    expected_NK = torch.stack([MultivariateNormal(mean, torch.eye(5)).log_prob(z_ND) for mean in means_KD], dim=1)
    found_NK = class_likelihood(z_ND, logdet_N, means_KD)
    torch.testing.assert_close(found_NK, expected_NK + logdet_N[:, None], atol=1e-4, rtol=1e-5)
    log_weights_K = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    weighted_NK = class_likelihood(z_ND, logdet_N, means_KD, log_weights_K)
    torch.testing.assert_close(weighted_NK - found_NK, log_weights_K.expand(7, 4), atol=1e-5, rtol=1e-5)


def test_distances_survive_a_far_centre_and_autocast():
    z_ND = torch.tensor([[1000.0, 1000.0], [1000.5, 1000.0]], dtype=torch.float32)
    means_KD = torch.tensor([[1000.0, 1000.0], [1002.0, 1000.0]])
    expected_NK = torch.tensor([[0.0, 4.0], [0.25, 2.25]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_NK = squared_distances(z_ND, means_KD)
    torch.testing.assert_close(found_NK, expected_NK, atol=1e-3, rtol=0)


def test_labels_of_a_hand_made_grid():
    """Channels background, 1, 2 at six places; class 2 is absent from the second image."""
    place = torch.tensor(
        [[0.9, 0.1, 0.0], [0.59, 0.0, 0.0], [0.7, 0.6, 0.0], [0.7, 0.65, 0.0], [0.0, 0.2, 0.8], [0.0, 0.75, 0.9]]
    )
    proto_BKhw = place.T.reshape(1, 3, 2, 3).expand(2, -1, -1, -1)
    present_BK = torch.tensor([[1, 1, 1], [1, 1, 0]])
    found = confident_labels(proto_BKhw, present_BK, 0.6, 0.1)
    assert found.dtype == torch.int64
    assert found[0].flatten().tolist() == [0, 255, 0, 255, 2, 2]
    assert found[1].flatten().tolist() == [0, 255, 0, 255, 255, 1]
    one = confident_labels(proto_BKhw, torch.tensor([[1, 0, 0], [0, 0, 0]]), 0.6, 0.1)
    assert one[0].flatten().tolist() == [0, 255, 0, 0, 255, 255], "alone in its image it leads"
    assert bool((one[1] == 255).all())
    # .8 - .7 in single precision is .1000000238 and .7 - .6 is .0999999642: both lead by the margin of .1.
    ties = torch.tensor([[0.8, 0.7], [0.7, 0.6], [0.6, 0.50001]]).T.reshape(1, 2, 1, 3)
    assert confident_labels(ties, torch.ones(1, 2), 0.6, 0.1).flatten().tolist() == [0, 0, 255]


@pytest.mark.parametrize("labels", [2, 21, 81])
def test_equal_scores_go_to_the_lower_label(labels):
    scores = torch.full((1, labels, 3, 3), 0.9)
    present = torch.ones(1, labels)
    assert not confident_labels(scores, present, 0.6, 0.0).any()
    present[0, 0] = 0.0
    assert bool((confident_labels(scores, present, 0.6, 0.0) == 1).all())
    assert bool((confident_labels(scores, torch.ones(1, labels), 0.6, 0.1) == 255).all())


def test_loss_by_hand():
    likelihood_NK = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0], [-7.0, -7.0, -1.0]], requires_grad=True)
    label_N = torch.tensor([1, 255, 0])
    present_NK = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    mixed = math.log((math.exp(-4) + math.exp(-5)) / 2)
    loss = flow_loss(likelihood_NK, label_N, present_NK)
    assert loss.item() == pytest.approx((2.0 - mixed + 7.0) / 3, abs=1e-6)
    loss.backward()
    share = math.exp(-4) / (math.exp(-4) + math.exp(-5))
    expected_NK = torch.tensor([[0.0, -1.0, 0.0], [-share, share - 1.0, 0.0], [-1.0, 0.0, 0.0]]) / 3
    torch.testing.assert_close(likelihood_NK.grad, expected_NK)


def test_equal_likelihoods_cost_the_same_labelled_or_not():
    likelihood_NK = torch.full((4, 21), -10.0)
    for label in (0, 20, 255):
        assert float(flow_loss(likelihood_NK, torch.full((4,), label), torch.ones(4, 21))) == pytest.approx(10.0)


def test_loss_without_vectors_or_without_present_classes_is_zero_with_finite_gradients():
    empty_NK = torch.zeros(0, 3, requires_grad=True)
    flow_loss(empty_NK, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)).backward()
    assert empty_NK.grad.shape == (0, 3)
    likelihood_NK = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    loss = flow_loss(likelihood_NK, torch.tensor([255, 1]), torch.tensor([[0, 0], [1, 1]]))
    assert loss.item() == 4.0
    loss.backward()
    assert likelihood_NK.grad.tolist() == [[0.0, 0.0], [0.0, -1.0]]


def test_posterior_of_two_unit_gaussians():
    """brnf.md 8.6."""
    z_N1 = torch.tensor([[0.0], [0.5], [1.0], [1.5], [2.0]])
    posterior = class_posterior(z_N1, torch.tensor([[0.0], [2.0]]), torch.ones(5, 2), 1.0)
    assert posterior[:, 1].tolist() == pytest.approx([0.1192, 0.2689, 0.5, 0.7311, 0.8808], abs=1e-4)
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(5))


def test_the_boundary_is_the_perpendicular_bisector_at_every_temperature():
    means_KD = torch.tensor([[1.0, 2.0, -1.0], [3.0, -2.0, 0.5]])
    along = means_KD[1] - means_KD[0]
    across = torch.linalg.cross(along, torch.tensor([0.3, 0.1, 0.9]))
    z_ND = means_KD.mean(dim=0) + torch.tensor([-5.0, 0.0, 4.0])[:, None] * across
    for temperature in (None, 0.1, 1.0, 30.0):
        posterior = class_posterior(z_ND, means_KD, torch.ones(3, 2), temperature)
        torch.testing.assert_close(posterior, torch.full((3, 2), 0.5), atol=1e-3, rtol=0)
        moved = class_posterior(z_ND + 0.01 * along, means_KD, torch.ones(3, 2), temperature)
        assert bool((moved[:, 1] > 0.5).all())


def test_posterior_of_present_classes_and_its_default_temperature():
    generator = torch.Generator().manual_seed(2)
    z_ND, means_KD = torch.randn(6, 40, generator=generator), torch.randn(3, 40, generator=generator)
    present_NK = torch.tensor([[1, 1, 1]] * 4 + [[1, 0, 1], [0, 0, 0]])
    z_ND.requires_grad_()
    found = class_posterior(z_ND, means_KD, present_NK)
    assert torch.equal(found, class_posterior(z_ND, means_KD, present_NK, 2.0)), "D/20"
    assert found[4, 1] == 0.0
    assert found[4].sum().item() == pytest.approx(1.0)
    assert found[5].tolist() == [0.0, 0.0, 0.0]
    found.square().sum().backward()
    assert bool(z_ND.grad.isfinite().all())
    assert torch.equal(z_ND.grad[5], torch.zeros(40))
    assert bool((z_ND.grad[:5].norm(dim=1) > 0).all())


def test_the_loss_of_a_flow_reaches_flow_and_means_only():
    """brnf.md 8.9: the features come detached; nothing else is there to learn."""
    torch.manual_seed(0)
    flow, means_KD = Flow(8, hidden=8), torch.nn.Parameter(torch.randn(3, 8))
    features_ND = torch.randn(10, 8, requires_grad=True)
    likelihood_NK = class_likelihood(*flow(features_ND.detach()), means_KD)
    flow_loss(likelihood_NK, torch.arange(10) % 3, torch.ones(10, 3)).backward()
    assert features_ND.grad is None
    assert float(means_KD.grad.abs().sum()) > 0
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in flow.parameters())
