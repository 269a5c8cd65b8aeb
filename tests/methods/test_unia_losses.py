"""UniA's distribution loss and sampling, with the numbers of unia.md section 8."""

from __future__ import annotations

import math

import pytest
import torch

from methods.parts.bases.schedules import warmup_poly
from methods.parts.ops.losses import balanced_segmentation_loss
from methods.parts.ops.relations import ptc_loss, token_relations
from methods.unia.losses import confident_map, distribution_loss, gaussian_kl, gaussian_prior_loss, sampled_map


@pytest.mark.parametrize(("share", "value"), [(0.03, 0.0273), (0.1, 0.0734), (0.5, 0.1109), (0.339, 0.1233)])
def test_distribution_loss_against_a_flat_map(share, value):
    """unia.md 8.2: KL = f e / Z - ln Z with Z = 1 - f + f e."""
    target = (torch.arange(10000) < round(share * 10000)).float()[None]
    z = 1 - share + share * math.e
    found = float(distribution_loss(torch.full((1, 10000), 0.3), target))
    assert found == pytest.approx(share * math.e / z - math.log(z), abs=1e-4)
    assert found == pytest.approx(value, abs=5e-4)


def test_distribution_loss_is_highest_at_the_cards_share_and_zero_at_the_target():
    shares = torch.arange(1, 1000) / 1000
    z = 1 - shares + shares * math.e
    values = shares * math.e / z - z.log()
    assert float(values.max()) == pytest.approx(0.1233, abs=1e-4)
    assert float(shares[values.argmax()]) == pytest.approx(0.339, abs=0.002)
    torch.manual_seed(0)
    target = torch.rand(3, 50)
    assert float(distribution_loss(target, target)) == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(distribution_loss(target + 5, target), torch.tensor(0.0), atol=1e-6, rtol=0)
    each = torch.stack([distribution_loss(torch.zeros(1, 50), t[None]) for t in target])
    torch.testing.assert_close(distribution_loss(torch.zeros(3, 50), target), each.mean())


def test_uncertainty_and_deviation_ranges():
    """unia.md 8.3."""
    ends = torch.tensor([-1.0, 1.0])
    assert ends.sigmoid().tolist() == pytest.approx([0.26894, 0.73106], abs=1e-5)
    assert (ends / 2).exp().tolist() == pytest.approx([0.60653, 1.64872], abs=1e-5)


@pytest.mark.parametrize(("log_var", "deviation"), [(-1.0, 0.0031), (1.0, 0.0084)])
def test_noise_of_the_sampled_map(log_var, deviation):
    """unia.md 8.3: 50 samples and 768 channels."""
    torch.manual_seed(0)
    found = sampled_map(torch.zeros(4, 784, 768), torch.full((4, 784, 768), log_var), 50)
    assert float(found.std()) == pytest.approx(deviation, rel=0.05)
    assert abs(float(found.mean())) < 4 * deviation / math.sqrt(found.numel())


def test_one_draw_stands_for_all_samples_with_gradient():
    torch.manual_seed(0)
    mean, log_var = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    noise = torch.randn(50, 2, 3, 5)

    def each(mean, log_var):
        return (mean + (log_var / 2).exp() * noise).mean(0).mean(-1)

    def one(mean, log_var):
        return sampled_map(mean, log_var, 50, noise.mean(0) * math.sqrt(50))

    torch.testing.assert_close(one(mean, log_var), each(mean, log_var))
    for found, wanted in zip(
        torch.autograd.functional.jacobian(one, (mean, log_var)),
        torch.autograd.functional.jacobian(each, (mean, log_var)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_gaussian_kl_of_the_card():
    """unia.md 8.3."""
    found = gaussian_kl(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 4.0]).log())
    assert found.tolist() == pytest.approx([0.5, 0.8069], abs=1e-4)
    tokens = torch.randn(2, 5, 4)
    unit = tokens / tokens.norm(dim=2, keepdim=True)
    wanted = gaussian_kl(unit.sum(2), -unit.sum(2)).sum() / 2
    torch.testing.assert_close(gaussian_prior_loss(tokens, -tokens), wanted)


def test_confident_map_is_the_share_of_classes_at_token_size():
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    label[0, :2, :2], label[0, 2:, 2:], label[0, 0, 3] = 3, 255, 1
    assert confident_map(label, (2, 2)).tolist() == [[1.0, 0.25, 0.0, 0.0]]
    assert confident_map(label, (4, 4)).sum() == 5


def test_balanced_cross_entropy_at_the_start():
    """unia.md 8.4."""
    label = torch.tensor([[[0, 1], [2, 255]]])
    assert float(balanced_segmentation_loss(torch.zeros(1, 21, 2, 2), label)) == pytest.approx(3.0445, abs=1e-4)
    assert float(balanced_segmentation_loss(torch.zeros(1, 81, 2, 2), label)) == pytest.approx(4.3944, abs=1e-4)


@pytest.mark.parametrize(
    ("step", "total", "lr"),
    [(199, 20000, 7.960e-6), (1999, 20000, 5.457e-5), (19999, 20000, 8.077e-9), (79999, 80000, 2.319e-9)],
)
def test_learning_rate_of_the_logs(step, total, lr):
    """unia.md 8.5."""
    assert 6e-5 * warmup_poly(step, total, 1500) == pytest.approx(lr, rel=5e-4)


def test_token_contrast_extremes():
    """unia.md 8.8."""
    label = torch.randint(0, 3, (2, 200))
    same = torch.ones(2, 200, 8)
    assert float(ptc_loss(same, token_relations(label))) == pytest.approx(0.5, abs=1e-4)
    perfect = torch.nn.functional.one_hot(label, 8).float()
    assert float(ptc_loss(perfect, token_relations(label))) == pytest.approx(0.0, abs=1e-4)
    tokens = torch.randn(2, 200, 8)
    torch.testing.assert_close(ptc_loss(tokens, token_relations(label)), ptc_loss(2 * tokens, token_relations(label)))
