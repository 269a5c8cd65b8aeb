"""UniA's network against unia.md: module, affinity, decoder, optimiser."""

from __future__ import annotations

import dataclasses
import math

import golden_curves as golden
import pytest
import torch
from torch.nn import functional as F

from harness.api.method import Progress
from harness.api.spec import resolve
from methods.parts.nets.attention import attention_maps, between_patches
from methods.parts.nets.decoders import LargeFOV
from methods.unia.config import METHOD, UniaConfig
from methods.unia.uncertainty import UncertaintyInference


def tiny_module(**words):
    torch.manual_seed(0)
    return UncertaintyInference(96, inner=128, hidden=64, bottleneck=32, pool=2, **words)


def head(projector, x):
    """The card's CosHead, spelt out."""
    for layer in projector.mlp:
        x = layer(x)
    rows = projector.prototypes.weight / projector.prototypes.weight.norm(dim=1, keepdim=True)
    return x / x.norm(dim=-1, keepdim=True) @ rows.T


def attend(layer, query, keys):
    """Multi-head attention, head by head."""
    q, k, v = (
        x @ w.T + b
        for x, w, b in zip((query, keys, keys), layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)
    )
    size = q.shape[-1] // layer.num_heads
    parts = [
        (a @ b.transpose(1, 2) / math.sqrt(size)).softmax(-1) @ c
        for a, b, c in zip(q.split(size, -1), k.split(size, -1), v.split(size, -1), strict=True)
    ]
    return layer.out_proj(torch.cat(parts, dim=-1))


@pytest.mark.parametrize("hw", [(4, 4), (3, 5)])
@pytest.mark.parametrize("separate", [False, True])
def test_uncertainty_module_is_the_cards(hw, separate):
    """unia.md 2.2, steps 1 to 7, on square and oblong grids."""
    module = tiny_module(separate_mean_head=separate)
    x = torch.randn(2, hw[0] * hw[1], 96)
    h = head(module.enter, x)
    grid = h.transpose(1, 2).reshape(2, 128, *hw)
    pooled = F.max_pool2d(grid, 2, 2).flatten(2).transpose(1, 2)

    def branch(conv, attention):
        return conv(grid).flatten(2).transpose(1, 2) + attend(attention, h, pooled)

    mean = head(module.leave_mean or module.leave, branch(module.mean_scale, module.mean_attention))
    s = head(module.leave, branch(module.log_var_scale, module.log_var_attention))
    certain = x * (1 - s.sigmoid())
    tokens = 2 * (attend(module.query_back, x, certain) + x)
    found = module(x, hw, with_mean=True)
    torch.testing.assert_close(found.log_var_BND, s, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mean_BND, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.tokens_BND, tokens, rtol=1e-4, atol=1e-5)
    assert float(s.detach().abs().max()) <= 1
    without = module(x, hw)
    assert without.mean_BND is None
    torch.testing.assert_close(without.tokens_BND, found.tokens_BND)


def test_parameters_of_the_card():
    """unia.md 2.2: about 24 M used parameters at the card's widths."""
    with torch.device("meta"):
        module = UncertaintyInference(768, inner=1024, hidden=2048, bottleneck=256, pool=4)
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in module.named_children()
             if part is not None}  # fmt: skip
    assert count["enter"] == pytest.approx(6.56, abs=0.02)
    assert count["leave"] == pytest.approx(7.02, abs=0.02)
    assert count["mean_attention"] == count["log_var_attention"] == pytest.approx(4.19, abs=0.02)
    assert count["query_back"] == pytest.approx(2.36, abs=0.01)
    assert (module.mean_attention.num_heads, module.query_back.num_heads) == (16, 16)
    assert sum(count.values()) == pytest.approx(24.3, abs=0.3)


def test_affinity_reads_the_last_two_blocks_with_gradient():
    method = golden.make("unia").eval()
    images = golden.batch(method).views["view1"]
    net = method.net
    assert net.affinity_blocks == (2, 3)
    read = net.read(images, with_affinity=True, with_mean=False)
    maps = [between_patches(a, True) for a in attention_maps(net.encoder, images, (2, 3), logits=True)]
    torch.testing.assert_close(read.affinity_BNN, net.affinity(maps))
    assert torch.equal(read.affinity_BNN, read.affinity_BNN.transpose(1, 2))
    read.affinity_BNN.sum().backward()
    assert net.encoder.net.blocks[2].attention.qkv.weight.grad.abs().sum() > 0
    after = golden.make("unia", aff_source="probabilities").eval().net
    maps = [between_patches(a, True) for a in attention_maps(after.encoder, images, (2, 3))]
    read = after.read(images, with_affinity=True, with_mean=False)
    torch.testing.assert_close(read.affinity_BNN, after.affinity(maps))


def test_only_attention_before_its_softmax_starts_as_the_log_does():
    """unia.md 5 and 8.1: the published log starts at .8386, above the ln(784)/8 = .8331 of a constant affinity.

    Rows of softmax sum to 1, so that over many tokens sigmoid sees almost nothing of them.
    """
    spread = {}
    info = dataclasses.replace(golden.make("unia", crop=224).info, backbone="vit_tiny_patch16_224")
    for source in ("logits", "probabilities"):
        torch.manual_seed(0)
        method = resolve(METHOD.build)(UniaConfig(aff_source=source), info).eval()
        images = torch.randn(1, 3, 224, 224)
        spread[source] = float(method.net.read(images, with_affinity=True, with_mean=False).affinity_BNN.std())
    assert spread["probabilities"] < 2e-4
    assert spread["logits"] > 5e-3


def test_network_of_the_card():
    method = golden.make("unia")
    net = method.net
    assert net.encoder.with_class_token
    assert not net.encoder.net.position_table.requires_grad
    assert net.encoder.cls_token.requires_grad
    assert isinstance(net.decoder, LargeFOV)
    spread = float(net.decoder.second.weight.detach().std())
    assert spread == pytest.approx(1 / math.sqrt(3 * 64 * 9), rel=0.1), "PyTorch's own start (operators.md A9)"
    torch.manual_seed(0)
    start = golden.make("unia", w_seg=1.0).step(golden.batch(method), Progress(15, 20)).losses
    assert float(start["seg"].detach()) == pytest.approx(math.log(4), rel=0.05), "unia.md 8.4: ln K at the start"
    assert not hasattr(net.uncertainty, "conv"), "what the published code never calls is not built"
    assert net.uncertainty.leave_mean is None
    assert golden.make("unia", separate_mu_head=True).net.uncertainty.leave_mean is not None
    bare = golden.make("unia", uncertainty=False, w_kl=0.0)
    assert bare.net.uncertainty is None
    assert "kl" not in bare.step(golden.batch(bare), Progress(15, 20)).losses


def test_optimiser_of_the_card():
    """unia.md 3: decay on everything, heads ten times faster, positions frozen."""
    method = golden.make("unia", lr=6e-5, head_lr_scale=10.0, iterations=20000, warmup=0.075)
    (plan,) = method.optimizers()
    encoder, heads = plan.optimizer.param_groups
    assert [g["lr"] for g in (encoder, heads)] == pytest.approx([6e-5, 6e-4])
    assert [g["weight_decay"] for g in (encoder, heads)] == [0.01, 0.01]
    assert (encoder["betas"], encoder["eps"]) == ((0.9, 0.999), 1e-8)
    trained = {id(p) for g in (encoder, heads) for p in g["params"]}
    assert trained == {id(p) for p in method.parameters() if p.requires_grad}
    assert {id(p) for p in encoder["params"]} <= {id(p) for p in method.net.encoder.parameters()}
    assert 6e-5 * plan.factor(199) == pytest.approx(7.960e-6, rel=5e-4)
    assert 6e-5 * plan.factor(19999) == pytest.approx(8.077e-9, rel=5e-4)
