"""BRNF's flow: the numbers of brnf.md section 8, its layout, and densities that are known exactly."""

from __future__ import annotations

import itertools
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from methods.brnf.density import class_likelihood
from methods.brnf.flow import INIT_STD, Flow, flow_input

ROOT = Path(__file__).parents[2]


def seeded(dim: int, **sizes) -> Flow:
    torch.manual_seed(3)
    return Flow(dim, **sizes)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("blocks", [2, 6])
def test_inverse_undoes_forward(dtype, bound, blocks):
    """brnf.md 8.1, and section 6: also at 6 blocks."""
    flow = seeded(256, blocks=blocks).to(dtype)
    a_ND = torch.randn(64, 256, dtype=dtype)
    with torch.no_grad():
        z_ND, logdet_N = flow(a_ND)
        back_ND, inverse_N = flow.inverse(z_ND)
    assert (z_ND - a_ND).abs().max() > 0.1
    assert float((back_ND - a_ND).abs().max()) < bound * (1 if blocks == 2 else 20)
    torch.testing.assert_close(inverse_N, -logdet_N, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dim", [2, 5, 6])
def test_log_determinant_is_that_of_the_jacobian(dim):
    """brnf.md 8.2; an odd number of coordinates splits into unequal halves."""
    flow = seeded(dim, hidden=16).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(10)
    a_D = torch.randn(dim, dtype=torch.float64)
    jacobian_DD = torch.autograd.functional.jacobian(lambda a: flow(a[None])[0][0], a_D)
    expected = float(torch.linalg.slogdet(jacobian_DD).logabsdet)
    assert abs(expected) > 0.01
    with torch.no_grad():
        assert float(flow(a_D[None])[1]) == pytest.approx(expected, abs=1e-6)


def test_change_of_variables_in_one_dimension():
    """brnf.md 8.3, in the first of two coordinates: a block whose subnets are constants."""
    s, t, mu = 0.7, -0.3, 1.2
    flow = Flow(2, hidden=4, blocks=1, clamp=2.0).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        flow.block0.net2[4].bias.copy_(torch.tensor([math.tan(s / (2.0 * 0.636)), t]))
    a_N = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    with torch.no_grad():
        z_ND, logdet_N = flow(torch.stack([a_N, torch.zeros_like(a_N)], dim=1))
    at = flow.perm0.tolist().index(0)
    mean_1D = torch.zeros(1, 2, dtype=torch.float64)
    mean_1D[0, at] = mu
    density_N = class_likelihood(z_ND, logdet_N, mean_1D)[:, 0].exp() * math.sqrt(2 * math.pi)
    total = torch.trapezoid(density_N, a_N)
    mean = torch.trapezoid(density_N * a_N, a_N)
    variance = torch.trapezoid(density_N * (a_N - mean) ** 2, a_N)
    assert float(total) == pytest.approx(1.0, abs=1e-6)
    assert float(mean) == pytest.approx(0.74488, abs=1e-5)
    assert float(variance) == pytest.approx(0.24660, abs=1e-5)


@pytest.mark.parametrize(("dim", "constant", "expected"), [(256, 235.248, 363.248), (768, 705.745, 1089.745)])
def test_identity_flow(dim, constant, expected):
    """brnf.md 8.4."""
    flow = Flow(dim)
    for parameter in flow.parameters():
        torch.nn.init.zeros_(parameter)
    a_ND = torch.randn(20_000, dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z_ND, logdet_N = flow(a_ND)
        nats_N = -class_likelihood(z_ND, logdet_N, torch.zeros(1, dim))[:, 0]
        at_mean = -class_likelihood(flow(a_ND[:1])[0], torch.zeros(1), z_ND[:1])
    assert torch.equal(logdet_N, torch.zeros(20_000))
    assert torch.equal(z_ND, a_ND[:, flow.perm0][:, flow.perm1])
    assert float(at_mean) == pytest.approx(constant, abs=2e-3)
    assert float(nats_N.mean()) == pytest.approx(expected, abs=4 * math.sqrt(dim / 2 / 20_000))


@pytest.mark.parametrize(("dim", "bound"), [(256, 1023.0), (768, 3069.0)])
def test_log_determinant_is_bounded(dim, bound):
    """brnf.md 8.5: subnets that ask for infinite scales reach the bound, and none passes it."""
    flow = Flow(dim)
    with torch.no_grad():
        for k in range(2):
            for net in (flow.get_submodule(f"block{k}.net1"), flow.get_submodule(f"block{k}.net2")):
                net[4].bias[: len(net[4].bias) // 2] = 1e9
        _, logdet_N = flow(torch.randn(4, dim))
    assert 2 * dim * 2.0 * 0.636 * math.pi / 2 == pytest.approx(bound, abs=0.1)
    torch.testing.assert_close(logdet_N, torch.full((4,), bound), atol=0.2, rtol=0)


def test_states_and_their_first_values():
    flow = seeded(768)
    layers = itertools.product((0, 1), (1, 2), (0, 2, 4), ("weight", "bias"))
    names = {f"block{k}.net{i}.{layer}.{kind}" for k, i, layer, kind in layers}
    assert set(flow.state_dict()) == names | {"perm0", "perm1"}
    assert {name for name, _ in flow.named_parameters()} == names
    for k in (0, 1):
        assert torch.equal(flow.get_buffer(f"perm{k}"), torch.from_numpy(np.random.RandomState(k).permutation(768)))
    values = torch.cat([parameter.flatten() for parameter in flow.parameters()])
    assert values.std().item() == pytest.approx(INIT_STD, rel=0.01)
    assert values.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert torch.equal(seeded(768).state_dict()["block1.net2.4.bias"], flow.block1.net2[4].bias)
    odd = Flow(5, hidden=8)
    assert (odd.block0.net1[0].in_features, odd.block0.net1[4].out_features) == (2, 6)
    assert (odd.block0.net2[0].in_features, odd.block0.net2[4].out_features) == (3, 4)
    for wrong in ({"dim": 1}, {"dim": 4, "blocks": 0}):
        with pytest.raises(ValueError, match="at least"):
            Flow(**wrong)


def test_no_vectors_and_gradients():
    flow = seeded(6, hidden=8)
    z_ND, logdet_N = flow(torch.zeros(0, 6))
    assert z_ND.shape == (0, 6)
    assert logdet_N.shape == (0,)
    a_ND = torch.randn(5, 6, requires_grad=True)
    z_ND, logdet_N = flow(a_ND)
    (z_ND.sum() + logdet_N.sum()).backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in flow.parameters())
    assert bool(a_ND.grad.isfinite().all())


def test_input_lies_on_a_sphere():
    features_ND = torch.randn(10, 768, generator=torch.Generator().manual_seed(1)) * 7
    a_ND = flow_input(features_ND)
    torch.testing.assert_close(a_ND.norm(dim=1), torch.full((10,), math.sqrt(768)))
    assert float(a_ND.var()) == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(flow_input(features_ND, 1.0).norm(dim=1), torch.ones(10))
    torch.testing.assert_close(flow_input(features_ND, 1.0) * math.sqrt(768), a_ND)
    assert torch.equal(flow_input(torch.zeros(2, 3)), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="sqrt"):
        flow_input(features_ND, "square")


def test_a_known_density_is_learned():
    """Two classes of unit Gaussians, 3 apart, bent along a parabola (the picture of methods/brnf/README.md): class
    Gaussians without a flow stay .64 nats above the true density at best, ours comes within .05 in seconds."""
    of = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "pictures" / "flow.py")))
    generator = torch.Generator().manual_seed(0)
    a_ND, label_N = of.draw(20_000, generator)
    torch.testing.assert_close(of.bent(of.unbent(a_ND)), a_ND, atol=1e-5, rtol=0)
    still_N = torch.zeros(len(a_ND))
    least = float(of.loss_of(of.unbent(a_ND), still_N, of.CENTRES_KD, label_N))
    assert least == pytest.approx(of.ENTROPY, abs=0.02)
    own_KD = torch.stack([a_ND[label_N == k].mean(dim=0) for k in (0, 1)])
    assert float(of.loss_of(a_ND, still_N, own_KD, label_N)) - least == pytest.approx(0.8**2, abs=0.05)
    torch.manual_seed(0)
    flow, means_KD = of.learn(generator)
    with torch.no_grad():
        reached = float(of.loss_of(*flow(a_ND), means_KD, label_N))
    assert -0.001 < reached - least < 0.05, "and no density is likelier than the true one"
