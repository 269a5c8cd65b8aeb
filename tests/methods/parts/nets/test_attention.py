"""Attention maps: equal to the fused kernel's outputs, rows sum to one, class token, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from harness.api.precision import no_gradient, of_run
from harness.errors import BadInput
from methods.parts.nets import encoders, shapes_nets
from methods.parts.nets.attention import attention_maps, between_patches
from methods.parts.nets.backbones import build_encoder, encode
from methods.parts.nets.timm_attention import attention_by_image

TINY = "vit_tiny_patch16_224"
NAMES = [TINY, "shapes_vit"]


def made(name, *, class_token=True, crop=32):
    torch.manual_seed(0)
    encoder = build_encoder(name, "random", crop=crop, drop=0.0, class_token=class_token).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6.0)  # trained networks attend, random ones hardly do
    return encoder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_are_those_of_the_fused_kernel(name, class_token):
    encoder = made(name, class_token=class_token).double()
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    fused = encode(encoder, images, tap=2)
    every = tuple(range(1, encoder.depth + 1))
    found = encode(encoder, images, tap=2, attention=every)
    torch.testing.assert_close(found.last_BND, fused.last_BND, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.tapped_BND, fused.tapped_BND, rtol=1e-5, atol=1e-6)
    tokens = found.hw[0] * found.hw[1] + int(class_token)
    assert len(found.attention) == encoder.depth
    for maps in found.attention:
        assert maps.shape == (2, encoder.heads, tokens, tokens)
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, encoder.heads, tokens).double())
    assert (found.class_BD is None) == (not class_token)


def test_probabilities_are_softmax_of_scaled_products():
    """timm's block 2 by hand: softmax(q k^T / sqrt(64))."""
    encoder = made(TINY)
    images = torch.randn(1, 3, 32, 32)
    x = encode(encoder, images, tap=1, stop_at_tap=True)
    x = torch.cat([x.class_BD[:, None], x.last_BND], dim=1)
    attention = encoder.blocks[1].attn
    q, k, _ = attention.qkv(encoder.blocks[1].norm1(x)).view(1, 5, 3, 3, 64).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-2, -1) / 8.0
    torch.testing.assert_close(encode(encoder, images, attention=(2,)).attention[0], logits.softmax(-1))
    torch.testing.assert_close(encode(encoder, images, attention=(2,), attention_logits=True).attention[0], logits)


def test_shapes_logits_fall_with_distance():
    encoder = made("shapes_vit")
    block = encoder.net.blocks[0].attention
    torch.nn.init.zeros_(block.qkv.weight)
    torch.nn.init.zeros_(block.qkv.bias)
    found = encode(encoder, torch.randn(1, 3, 16, 16), attention=(1,), attention_logits=True).attention[0]
    slope = F.softplus(block.slope)
    torch.testing.assert_close(found[0, :, 1, 2], -slope)  # patches one token apart
    torch.testing.assert_close(found[0, :, 1, 4], -slope * 2**0.5)
    torch.testing.assert_close(found[0, :, 0, 1], torch.zeros(4))  # the class token looks from distance 0


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_the_maps_and_other_blocks_keep_the_fused_kernel(name, monkeypatch):
    encoder = made(name)
    fused = []
    for module, kernel in ((F, "scaled_dot_product_attention"), (shapes_nets, "_head_by_head")):
        real = getattr(module, kernel)
        monkeypatch.setattr(module, kernel, lambda *a, real=real, **k: fused.append(1) or real(*a, **k))
    last = (encoder.depth - 1, encoder.depth)
    first, second = encode(encoder, torch.randn(1, 3, 32, 32), attention=last).attention
    assert len(fused) == encoder.depth - 2
    (between_patches(first, True).square().sum() + between_patches(second, True).square().sum()).backward()
    assert float(encoder.cls_token.grad.abs().sum()) > 0
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_order_of_blocks_is_the_callers_and_mode_is_put_back():
    encoder = made("shapes_vit").train()
    images = torch.randn(1, 3, 32, 32)
    third, first = attention_maps(encoder, images, (3, 1))
    assert encoder.training
    assert not third.requires_grad
    assert torch.equal(first, attention_maps(encoder, images, [1])[0])
    # Its inputs come from the fused kernel here, and from explicit attention above.
    torch.testing.assert_close(third, attention_maps(encoder, images, [3])[0], rtol=1e-3, atol=1e-5)
    assert attention_maps(encoder, images, []) == []


def test_between_patches_drops_row_and_column_of_the_class_token():
    maps = torch.arange(9.0).view(1, 1, 3, 3)
    assert between_patches(maps, True).tolist() == [[[[4.0, 5.0], [7.0, 8.0]]]]
    assert torch.equal(between_patches(maps, False), maps)


@pytest.mark.parametrize("blocks", [(0,), (4,), (1, -1)])
def test_blocks_that_are_not_run_are_refused(blocks):
    with pytest.raises(ValueError, match="blocks 1 to 3 are run"):
        encode(made("shapes_vit"), torch.zeros(1, 3, 32, 32), attention=blocks)
    with pytest.raises(ValueError, match="blocks 1 to 2 are run"):
        encode(made("shapes_vit"), torch.zeros(1, 3, 32, 32), tap=2, stop_at_tap=True, attention=(3,))


def test_networks_with_other_attention_are_named():
    encoder = made(TINY)
    encoder.blocks[3].attn = torch.nn.Sequential()
    with pytest.raises(BadInput, match="attention cannot be read from Block with Sequential"):
        encode(encoder, torch.zeros(1, 3, 32, 32), attention=(4,))


def test_attention_by_image_is_the_fused_kernels():
    encoder = made(TINY)
    attention = encoder.blocks[1].attn
    x = torch.randn(3, 5, 192)
    with torch.no_grad():
        torch.testing.assert_close(attention_by_image(attention, x), attention(x), rtol=1e-5, atol=1e-6)


def test_bfloat16_passes_without_gradient_go_image_by_image(monkeypatch):
    """And only they: the fused kernel keeps float32, and every pass with a gradient."""
    encoder, images, calls = made(TINY), torch.randn(2, 3, 32, 32), []
    by_image = encoders.attention_by_image
    monkeypatch.setattr(encoders, "attention_by_image", lambda *words: (calls.append(1), by_image(*words))[1])
    whole = encode(encoder, images).last_BND.detach()
    with of_run("bf16-nograd", "cpu"), no_gradient(images.device):
        low = encode(encoder, images).last_BND
    assert len(calls) == encoder.depth
    assert (low - whole).norm() < 0.03 * whole.norm()
    with no_gradient(images.device):
        assert torch.equal(encode(encoder, images).last_BND, whole)
    with torch.autocast("cpu", torch.bfloat16):
        encode(encoder, images)
    assert len(calls) == encoder.depth
