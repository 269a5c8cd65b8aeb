"""Backbones in five stages."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from harness.api.encoders import given
from harness.errors import BadInput
from methods.parts.nets.backbones import encode
from methods.parts.nets.stages import StageList, build_stages


def maps_of(name: str, side: int = 96, frozen: int = 0) -> tuple:
    torch.manual_seed(0)
    stages = build_stages(name, None if name.startswith("shapes") else "random", crop=side)
    return stages, stages(torch.randn(1, 3, side, side), frozen)


@pytest.mark.parametrize(
    ("name", "strides", "dims"),
    [
        ("resnet50", (4, 4, 8, 16, 16), (64, 256, 512, 1024, 2048)),
        ("resnet18", (4, 4, 8, 16, 16), (64, 64, 128, 256, 512)),
        ("mobilenetv2_100", (2, 4, 8, 16, 16), (16, 24, 32, 96, 320)),
        ("convnext_atto", (4, 4, 8, 16, 16), (40, 40, 80, 160, 320)),
        ("vgg11", (2, 4, 8, 16, 32), (64, 128, 256, 512, 512)),
        ("densenet121", (4, 4, 8, 16, 32), (64, 256, 512, 1024, 1024)),
        ("vit_tiny_patch16_224", (16,) * 5, (192,) * 5),
        ("shapes_vit", (4, 8, 8, 8, 8), (48, 96, 96, 96, 96)),
        ("shapes_cnn", (2, 4, 8, 8, 8), (24, 48, 96, 128, 128)),
    ],
)
def test_strides_and_channels(name, strides, dims):
    stages, maps = maps_of(name)
    assert tuple(int(x.shape[1]) for x in maps) == stages.dims == dims
    assert tuple(96 // int(x.shape[3]) for x in maps) == stages.strides == strides


def test_the_card_s_resnet_has_no_dilation_and_frozen_statistics():
    """irn.md 1: layer4 has stride 1 and dilation 1; sizes of sipe.md 8.7."""
    stages = build_stages("resnet50", "random", crop=64)
    assert {m.dilation for m in stages.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert {m.padding for m in stages[4].modules() if isinstance(m, nn.Conv2d)} == {(0, 0), (1, 1)}
    assert [x.shape[2] for x in stages(torch.randn(1, 3, 64, 64))] == [16, 16, 8, 4, 4]
    assert [x.shape[2:] for x in stages(torch.randn(1, 3, 75, 101))][-1] == (5, 7)
    assert not any(m.training for m in stages.train().modules() if isinstance(m, nn.BatchNorm2d))
    stages.freeze(3)
    learned = sum(p.numel() for p in stages.parameters() if p.requires_grad)
    assert round(learned / 1e6, 2) == 22.06
    assert round(sum(p.numel() for p in stages.parameters()) / 1e6, 2) == 23.51


def test_stages_are_the_network_s_own():
    torch.manual_seed(1)
    stages = build_stages("resnet18", "random", crop=64)
    torch.manual_seed(1)
    net = timm.create_model("resnet18", features_only=True, output_stride=8).eval()
    image = torch.randn(2, 3, 64, 64)
    # Of output stride 8 only the maps up to layer2 are the same: behind them its convolutions are dilated.
    for ours, theirs in zip(stages(image)[1:3], net(image)[1:3], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "shapes_vit", "shapes_cnn"])
def test_frozen_stages_pass_no_gradient(name):
    stages, maps = maps_of(name, frozen=3)
    assert [x.requires_grad for x in maps] == [False] * 3 + [True] * 2
    stages.freeze(3)
    sum(x.sum() for x in stages(torch.randn(1, 3, 96, 96), 3)[3:]).backward()
    assert all((p.grad is not None) == p.requires_grad for p in stages.parameters())
    assert any(p.requires_grad for p in stages.parameters())
    stages.freeze(5)
    assert not any(p.requires_grad for p in stages.parameters())


def test_a_vit_s_last_map_is_its_normalised_tokens():
    stages, _ = maps_of("vit_tiny_patch16_224")
    image = torch.randn(1, 3, 100, 90)
    encoded = encode(stages.encoder, image)
    expected = stages.encoder.norm(encoded.last_BND).transpose(1, 2).unflatten(2, encoded.hw)
    assert torch.allclose(stages(image)[-1], expected, atol=1e-5)
    assert stages.ends == (0, 3, 6, 9, 12)


def test_what_has_no_stages_is_named():
    with pytest.raises(BadInput) as error:
        build_stages("hrnet_w18_small", "random", crop=64)
    assert error.value.problems[0].where == "backbone.name"
    with pytest.raises(BadInput, match="resnet"):
        build_stages("resnet5O", "random", crop=64)
    with pytest.raises(ValueError, match="5 are needed"):
        StageList([nn.Identity()])


def test_a_module_that_is_given_stands_for_the_backbone():
    """Five modules, stages, a network of maps and a ViT, whatever name is asked for."""
    five = [nn.Conv2d(3, 4, 3, 2, 1), *(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(2)), nn.Identity(), nn.Identity()]
    whole = StageList(five)
    torch.manual_seed(1)
    resnet = timm.create_model("resnet18", features_only=True, output_stride=16)
    vit = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, num_classes=0)
    image = torch.randn(1, 3, 64, 64)
    for net in (nn.ModuleList(five), nn.Sequential(*five), whole):
        with given(net):
            found = build_stages("any", None, crop=64)
        assert all(torch.equal(a, b) for a, b in zip(found(image), whole(image), strict=True))
    with given(resnet):
        assert build_stages("any", None, crop=64).strides == (4, 4, 8, 16, 16)
    with given(vit):
        assert build_stages("any", None, crop=64).strides == (16,) * 5
    for net in (nn.Sequential(*five[:4]), timm.create_model("resnet18"), nn.Conv2d(3, 4, 1)):
        with given(net), pytest.raises(BadInput) as error:
            build_stages("any", None, crop=64)
        assert error.value.problems[0].where == "backbone.name"
