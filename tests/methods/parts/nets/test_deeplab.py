"""The DeepLabV3+ decoder, its batch norm, and the backbones that feed it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from harness.errors import BadInput
from methods.parts.nets.backbones import encode
from methods.parts.nets.deeplab import ASPP, DeepLabV3Plus, GroupBatchNorm, Lift, absorb_stats, fitted_rates, take_stats
from methods.parts.nets.pyramids import TimmPyramid, TokenPyramid, ViTPyramid, build_pyramid


def test_card_sizes_and_parameters():
    """agmm.md 2.2 on ResNet-101 at stride 4 and 8: F (B,256,17,17) and logits of a 65-pixel input, counted by hand."""
    torch.manual_seed(0)
    decoder = DeepLabV3Plus(2048, 256, 21).eval()
    deep, skip = torch.randn(2, 2048, 9, 9), torch.randn(2, 256, 17, 17)
    features = decoder.features(deep, skip)
    assert features.shape == (2, 256, 17, 17)
    assert float(features.detach().min()) >= 0
    assert decoder(deep, skip).shape == (2, 21, 17, 17)
    aspp = 2 * (2048 * 256 + 512) + 3 * (2048 * 256 * 9 + 512) + 1280 * 256 + 512
    rest = 256 * 48 + 96 + 304 * 256 * 9 + 512 + 256 * 256 * 9 + 512 + 256 * 21 + 21
    assert sum(p.numel() for p in decoder.parameters()) == aspp + rest


def test_rates_follow_the_grid_as_the_doubled_ones_of_stride_8_do():
    assert fitted_rates(28) == (6, 12, 18)
    assert fitted_rates(56) == (12, 24, 36)
    assert fitted_rates(12) == (3, 5, 8)
    assert fitted_rates(2) == (1, 1, 1)


def test_the_pyramid_sees_its_dilations_and_the_whole_map():
    torch.manual_seed(0)
    aspp = ASPP(4, 8, (2, 5), 0.0).eval()
    image = torch.randn(1, 4, 21, 21, requires_grad=True)
    aspp(image)[0, :, 10, 10].sum().backward()
    near = aspp.branches[1](image.detach())
    assert near.shape == (1, 8, 21, 21)
    assert image.grad is not None
    assert bool((image.grad != 0).any(1).all()), "the pooled branch reads every cell"
    far = image.grad.abs().sum(1)[0]
    taps = {(int(y) - 10, int(x) - 10) for y, x in torch.nonzero(far > far.median() * 3)}
    assert taps <= {(dy * r, dx * r) for r in (0, 2, 5) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}


def test_lift_doubles():
    assert Lift(12, 8, 2)(torch.randn(1, 12, 3, 5)).shape == (1, 8, 12, 20)
    assert Lift(12, 8, 0)(torch.randn(1, 12, 3, 5)).shape == (1, 8, 3, 5)
    decoder = DeepLabV3Plus(12, None, 3, width=16, rates=(1, 2), lift=2).eval()
    assert decoder(torch.randn(1, 12, 3, 5), None).shape == (1, 3, 12, 20)
    with pytest.raises(ValueError, match="stride-4"):
        DeepLabV3Plus(12, 6, 3, width=16)(torch.randn(1, 12, 3, 5), None)


def test_group_batch_norm_is_batch_norm_with_statistics_apart():
    """Outputs, gradients and, after `absorb_stats`, running statistics equal those of torch's layer."""
    torch.manual_seed(0)
    ours, theirs = GroupBatchNorm(5), nn.BatchNorm2d(5)
    x = torch.randn(3, 5, 4, 6) * 2 + 1
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    left, right = ours(a), theirs(b)
    torch.testing.assert_close(left, right)
    weight = torch.randn_like(x)
    (left * weight).sum().backward()
    (right * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    assert ours.running_mean is not None
    assert not ours.running_mean.any(), "the forward moves nothing"
    absorb_stats(ours, take_stats(ours))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert take_stats(ours) == {}
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert ours.seen == []


def test_one_value_a_channel_gives_the_bias():
    norm = GroupBatchNorm(3)
    nn.init.constant_(norm.bias, 0.25)
    out = norm(torch.randn(1, 3, 1, 1))
    torch.testing.assert_close(out, torch.full((1, 3, 1, 1), 0.25))
    absorb_stats(norm, take_stats(norm))
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_var, torch.full((3,), 0.9))


@pytest.mark.parametrize(
    ("name", "crop", "dim", "skip", "stride"),
    [
        ("shapes_vit", 96, 96, 48, 8),
        ("shapes_cnn", 96, 128, 48, 8),
        ("resnet18", 64, 512, 64, 16),
        ("test_vit", 64, 64, None, 16),
    ],
)
def test_backbones_give_a_deep_map_and_one_of_stride_4(name, crop, dim, skip, stride):
    torch.manual_seed(0)
    net = build_pyramid(name, "random", crop=crop, drop=0.0).train()
    deep, fine = net(torch.randn(2, 3, crop, crop))
    assert (net.dim, net.skip_dim, net.stride) == (dim, skip, stride)
    assert deep.shape == (2, dim, crop // stride, crop // stride)
    assert skip is None or fine.shape == (2, skip, crop // 4, crop // 4)
    assert net.lift == {8: 1, 16: 2}[stride]
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    odd, _ = net(torch.randn(1, 3, 50, 70))
    assert odd.shape[:2] == (1, dim)


SQUARE, MULTIPLES = "square", "multiples"


@pytest.mark.parametrize(
    ("name", "kind", "takes", "dim", "skip", "stride"),
    [
        ("vit_small_patch16_dinov3", TokenPyramid, MULTIPLES, 384, None, 16),
        ("eva02_tiny_patch14_224", TokenPyramid, MULTIPLES, 192, None, 14),
        ("xcit_nano_12_p16_224", TokenPyramid, MULTIPLES, 128, None, 16),
        ("cait_xxs24_224", TokenPyramid, SQUARE, 192, None, 16),
        ("vit_relpos_small_patch16_224", TokenPyramid, SQUARE, 384, None, 16),
        ("mixer_s32_224", TokenPyramid, SQUARE, 512, None, 32),
        ("swin_tiny_patch4_window7_224", TimmPyramid, MULTIPLES, 768, 96, 32),
        ("mobilevit_xxs", TimmPyramid, "any", 320, 24, 16),
    ],
)
def test_any_timm_network_serves_the_crop_and_every_image(name, kind, takes, dim, skip, stride):
    """Networks of one size see every image as a square of the crop; the maps cover the whole image all the same."""
    crop = 96
    net = build_pyramid(name, "random", crop=crop, drop=0.1).train()
    assert isinstance(net, kind)
    assert (net.dim, net.skip_dim, net.stride) == (dim, skip, stride)
    assert net.lift == {14: 2, 16: 2, 32: 3}[stride]
    cells = max(1, round(crop / stride))
    deep, fine = net(torch.randn(1, 3, crop, crop))
    assert deep.shape == (1, dim, cells, cells)
    assert fine is None if skip is None else fine.shape == (1, skip, crop // 4, crop // 4)
    deep.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert sum(p.grad is not None for p in net.parameters()) > 20
    odd, _ = net(torch.randn(1, 3, 131, 230))
    wanted = {SQUARE: (cells, cells), MULTIPLES: (round(131 / stride), round(230 / stride)), "any": (9, 15)}
    assert odd.shape == (1, dim, *wanted[takes])
    assert DeepLabV3Plus(dim, skip, 3, width=16, lift=net.lift).eval()(deep, fine).shape[:2] == (1, 3)


def test_a_network_that_cannot_serve_is_answered_at_build():
    with pytest.raises(BadInput, match="gives no maps of 100-pixel images") as caught:
        build_pyramid("efficientformer_l1", "random", crop=100, drop=0.0)
    (problem,) = caught.value.problems
    assert (problem.where, problem.fix) == ("backbone.name", "another crop, or for instance backbone=resnet50")


def test_trying_sizes_draws_no_random_number_and_leaves_the_mode():
    torch.manual_seed(0)
    timm.create_model("resnet18", pretrained=False, features_only=True, output_stride=16)
    expected = torch.rand(3)
    torch.manual_seed(0)
    net = build_pyramid("resnet18", "random", crop=64, drop=0.0)
    assert torch.equal(torch.rand(3), expected)
    assert net.training


def test_local_weights_of_a_network_of_one_scale_are_fitted_to_the_crop(tmp_path):
    whole = timm.create_model("vit_relpos_small_patch16_224", pretrained=False)
    for p in whole.parameters():
        nn.init.constant_(p, 0.125)
    state = {k: v.contiguous() for k, v in whole.state_dict().items()}
    save_file(state, tmp_path / "relpos.safetensors")
    net = build_pyramid("vit_relpos_small_patch16_224", str(tmp_path / "relpos.safetensors"), crop=96, drop=0.0)
    assert all(bool((p == 0.125).all()) for p in net.parameters())
    save_file({k: v for k, v in state.items() if "blocks.3" not in k}, tmp_path / "part.safetensors")
    with pytest.raises(BadInput, match=r"tensors are missing, first blocks\.3"):
        build_pyramid("vit_relpos_small_patch16_224", str(tmp_path / "part.safetensors"), crop=96, drop=0.0)


def test_shapes_vit_has_the_tokens_that_encode_gives():
    net = build_pyramid("shapes_vit", None, crop=96, drop=0.0).eval()
    images = torch.randn(1, 3, 96, 88)
    assert isinstance(net, ViTPyramid)
    encoded = encode(net.encoder, images)
    expected = net.encoder.norm(encoded.last_BND).transpose(1, 2).unflatten(2, encoded.hw)
    assert torch.equal(net(images)[0], expected)


def test_local_weights_must_fit(tmp_path):
    whole = timm.create_model("resnet18", pretrained=False)
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, tmp_path / "r18.safetensors")
    net = build_pyramid("resnet18", str(tmp_path / "r18.safetensors"), crop=64, drop=0.0)
    assert isinstance(net, TimmPyramid)
    assert torch.equal(net.net.state_dict()["layer3.0.conv1.weight"], whole.state_dict()["layer3.0.conv1.weight"])
    partial = {k: v.contiguous() for k, v in whole.state_dict().items() if not k.startswith("layer2")}
    save_file(partial, tmp_path / "part.safetensors")
    for file, name in (("part.safetensors", "resnet18"), ("r18.safetensors", "resnet34")):
        with pytest.raises(BadInput, match="does not fit"):
            build_pyramid(name, str(tmp_path / file), crop=64, drop=0.0)
    with pytest.raises(BadInput, match=r"none.safetensors is no file"):
        build_pyramid("resnet18", str(tmp_path / "none.safetensors"), crop=64, drop=0.0)
    with pytest.raises(BadInput, match="did you mean resnet18"):
        build_pyramid("resnet18x", "random", crop=64, drop=0.0)
    with pytest.raises(BadInput, match="no weights tagged"):
        build_pyramid("resnet18.nosuch", "random", crop=64, drop=0.0)


def test_real_weights_of_a_cnn(real_weights):
    path = real_weights / "mobilenetv2_100.in1k_torchvision_bnfolded_backbone.timm.safetensors"
    net = build_pyramid("mobilenetv2_100", str(path), crop=160, drop=0.0)
    deep, fine = net(torch.zeros(1, 3, 160, 160))
    assert deep.shape == (1, 320, 10, 10)
    assert fine is not None
    assert fine.shape == (1, 24, 40, 40)


@pytest.fixture
def real_weights():
    where = os.environ.get("WSSS_REAL_DATA")
    if not where:
        pytest.skip("WSSS_REAL_DATA names no folder of real weights")
    return Path(where) / "weights"
