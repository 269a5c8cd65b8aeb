"""Backbones at output stride 8 with multi-grid and learning batch norm: the numbers of agmm.md 3 and 8."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from harness.errors import BadInput
from methods.parts.nets.deeplab import DeepLabV3Plus, GroupBatchNorm, absorb_stats, take_stats
from methods.parts.nets.dilated import dilated_backbone, train_batch_norm


def dilations(pyramid, stage):
    return [
        m.dilation[0]
        for name, m in pyramid.named_modules()
        if stage in name and isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]


@pytest.mark.parametrize(("multi_grid", "last"), [(False, [2, 4, 4]), (True, [4, 8, 16]), ((1, 2, 1), [2, 8, 4])])
def test_dilations_and_parameters_of_the_card(multi_grid, last):
    net = dilated_backbone("resnet50s", multi_grid)
    assert dilations(net, "layer3") == [1, 2, 2, 2, 2, 2]
    assert dilations(net, "layer4") == last
    assert net.stride == 8


def test_self_check_7_shapes_and_parameters():
    """65x65 pixels: stride-4 map 17x17, deep map 9x9, F (.,256,17,17); the card's 23.63 M of backbone and decoder."""
    torch.manual_seed(0)
    net = dilated_backbone("resnet50s", True).eval()
    decoder = DeepLabV3Plus(2048, 256, 19, rates=(12, 24, 36), align_corners=True).eval()
    with torch.no_grad():
        deep, fine = net(torch.randn(1, 3, 65, 65))
        features = decoder.features(deep, fine)
    assert deep.shape == (1, 2048, 9, 9)
    assert fine.shape == (1, 256, 17, 17)
    assert features.shape == (1, 256, 17, 17)
    parameters = [sum(p.numel() for p in m.parameters()) for m in (net, decoder)]
    assert parameters[0] == 23_631_808
    assert sum(parameters) / 1e6 == pytest.approx(40.48, abs=0.01)


def test_networks_that_cannot_be_dilated_say_so():
    assert dilated_backbone("shapes_cnn", crop=96).stride == 8
    with pytest.raises(BadInput, match="output_stride: shapes_cnn has an output stride of 8, not 16"):
        dilated_backbone("shapes_cnn", crop=96, output_stride=16)
    with pytest.raises(BadInput, match="multi_grid: shapes_vit has no last stage of 3 blocks"):
        dilated_backbone("shapes_vit", True, crop=96)
    with pytest.raises(BadInput, match="multi_grid: resnet18 has no last stage of 3"):
        dilated_backbone("resnet18", True)
    assert dilated_backbone("resnet18", output_stride=16).stride == 16


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_035"])
def test_batch_norm_over_the_group_is_that_of_torch(name):
    """Outputs in training mode and, after `absorb_stats`, running statistics; the activation behind it too."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0).train()
    ours = timm.create_model(name, num_classes=0)
    ours.load_state_dict(theirs.state_dict())
    count = sum(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    assert train_batch_norm(ours) == count
    assert train_batch_norm(ours) == 0
    assert all(isinstance(m, GroupBatchNorm) for m in ours.modules() if isinstance(m, nn.BatchNorm2d))
    ours.train()
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)
    stats = take_stats(ours)
    assert len(stats) == count
    absorb_stats(ours, stats)
    for name, value in theirs.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-3, atol=1e-3)
