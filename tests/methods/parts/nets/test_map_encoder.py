"""CNNs where tokens are asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.api.encoders import given
from harness.errors import BadInput
from methods.parts.nets.backbones import build_encoder, encode
from methods.parts.nets.map_encoder import MapEncoder, build_token_source
from methods.parts.nets.pyramids import build_pyramid


@pytest.mark.parametrize(
    ("name", "stride", "dim", "skip"),
    [("resnet18", 16, 512, 64), ("mobilenetv2_100", 16, 320, 24), ("shapes_cnn", 8, 128, 48)],
)
def test_tokens_are_the_deep_map_row_by_row(name, stride, dim, skip):
    weights = None if name == "shapes_cnn" else "random"
    encoder = build_token_source(name, weights, crop=64, drop=0.1).eval()
    assert isinstance(encoder, MapEncoder)
    assert (encoder.depth, encoder.stride, encoder.dim, encoder.skip_dim) == (0, stride, dim, skip)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = encode(encoder, images)
    deep, fine = encoder.pyramid(images)
    assert found.hw == (64 // stride, 96 // stride)
    torch.testing.assert_close(encoder.norm(found.last_BND).transpose(1, 2).unflatten(2, found.hw), deep)
    torch.testing.assert_close(found.skip_BSHW, fine)
    with pytest.raises(ValueError, match="blocks 1 to 0"):
        encode(encoder, images, attention=[1])
    with pytest.raises(IndexError, match="has none"):
        encoder.run_block(0, found.last_BND, found.hw, class_token=False)


def test_a_stride_is_asked_for_and_statistics_stay():
    encoder = build_token_source("resnet18", "random", crop=64, drop=0.0, output_stride=8)
    assert encoder.stride == 8
    assert encode(encoder, torch.zeros(1, 3, 64, 64)).hw == (8, 8)
    assert not any(m.training for m in encoder.train().modules() if isinstance(m, nn.BatchNorm2d))


def test_plain_vits_come_as_before():
    torch.manual_seed(0)
    one = build_token_source("shapes_vit", "random", crop=48, drop=0.0, class_token=True)
    torch.manual_seed(0)
    two = build_encoder("shapes_vit", "random", crop=48, drop=0.0, class_token=True)
    assert type(one) is type(two)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_given_module_is_taken():
    pyramid = build_pyramid("shapes_cnn", None, crop=48, drop=0.0)
    with given(pyramid):
        assert build_token_source("vit_tiny_patch16_224", None, crop=48, drop=0.0).pyramid is pyramid


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"name": "resnet18", "weights": "random", "class_token": True}, "no class token"),
        ({"name": "resnet81", "weights": "random"}, "timm knows no 'resnet81'"),
        ({"name": "resnet18", "weights": "/no/such.pth"}, "is no file"),
    ],
)
def test_refusals(words, said):
    with pytest.raises(BadInput, match=said):
        build_token_source(**words, crop=64, drop=0.0)
