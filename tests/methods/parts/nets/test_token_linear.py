"""Linear layers on oneDNN: numbers, gradients, names and sharing of parameters, and where PyTorch's own are kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from methods.parts.nets import token_linear
from methods.parts.nets.backbones import build_encoder, encode
from methods.parts.nets.token_linear import TokenLinear, use_token_linears


def made(inside=7, outside=5, *, bias=True):
    torch.manual_seed(0)
    layer = nn.Linear(inside, outside, bias=bias)
    return layer, TokenLinear(layer)


@pytest.fixture
def counted(monkeypatch):
    """How often oneDNN is called."""
    calls = []
    product = token_linear._product
    monkeypatch.setattr(token_linear, "_product", lambda *words: (calls.append(1), product(*words))[1])
    return calls


def test_this_pytorch_has_the_operator():
    """Where it goes, the steps of `docs/benchmarks.md` take longer: measure anew."""
    assert torch.backends.mkldnn.is_available() == token_linear.ONEDNN


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 7), (2, 11, 7), (2, 3, 4, 7), (0, 7)])
def test_numbers_and_gradients_are_those_of_pytorch(bias, shape):
    layer, ours = made(bias=bias)
    x = torch.randn(*shape)
    results = []
    for module in (layer, ours):
        at = x.clone().requires_grad_()
        module.zero_grad()
        out = module(at)
        (out * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
        results.append([out.detach(), at.grad, *(p.grad.clone() for p in module.parameters())])
        with torch.no_grad():
            torch.testing.assert_close(module(x), results[-1][0], rtol=0, atol=0)
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_views_that_are_not_contiguous():
    layer, ours = made()
    x = torch.randn(7, 4, 2).permute(2, 1, 0).requires_grad_()
    grads = [torch.autograd.grad(module(x).mT.square().sum(), x)[0] for module in (layer, ours)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_only_what_needs_a_gradient_gets_one(counted):
    _, ours = made()
    ours(torch.randn(3, 7)).sum().backward()
    assert len(counted) == 1, "a product for an input that takes no gradient"
    ours.weight.requires_grad_(False)
    ours.weight.grad = None
    x = torch.randn(3, 7, requires_grad=True)
    ours(x).sum().backward()
    assert ours.weight.grad is None
    torch.testing.assert_close(x.grad, ours.weight.sum(dim=0).expand(3, 7))


def test_other_precisions_and_devices_stay_with_pytorch(counted):
    layer, ours = made()
    x = torch.randn(3, 7)
    assert torch.equal(copy.deepcopy(ours).double()(x.double()), copy.deepcopy(layer).double()(x.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    assert copy.deepcopy(ours).to("meta")(x.to("meta")).shape == (3, 5)
    assert not counted
    ours(x)
    assert len(counted) == 1


def test_a_second_derivative_is_refused():
    _, ours = made()
    x = torch.randn(3, 7, requires_grad=True)
    (first,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_parameters_and_their_names_stay():
    net = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.GELU(), nn.Linear(3, 2, bias=False)))
    before = dict(net.named_parameters())
    use_token_linears(net)
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    assert [type(m) for m in net.modules() if isinstance(m, nn.Linear)] == [TokenLinear, TokenLinear]


def test_a_timm_encoder_computes_what_it_did(monkeypatch, counted):
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", "random", crop=32, drop=0.0)
    images = torch.randn(2, 3, 32, 32)

    def tokens_and_gradient():
        encoder.zero_grad()
        out = encode(encoder, images).last_BND
        out.square().sum().backward()
        return out.detach(), encoder.blocks[0].attn.qkv.weight.grad.clone()

    found = tokens_and_gradient()
    assert len(counted) == 2 * 4 * 12, "each layer's product and the gradient of its input"
    monkeypatch.setattr(token_linear, "ONEDNN", False)
    for one, other in zip(found, tokens_and_gradient(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
