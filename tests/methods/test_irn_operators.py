"""IRN's CAMs and heads. Numbers of irn.md section 8."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from harness.api.images import covered
from methods.irn.maps import fused_cam
from methods.parts.nets.boundary import DisplacementHead, EdgeHead


def strided_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Cells of a map of that stride."""
    return tuple(side // stride for side in covered(size, stride))


def test_sizes_of_the_card():
    """irn.md 8.1."""
    assert strided_size((375, 500), 4) == (94, 125)
    assert covered((375, 500), 16) == (384, 512)


def test_cam_of_the_card():
    """irn.md 8.3: one class of weights (1,-2)."""
    weight = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    image = torch.tensor([[1.0, 2.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    mirror = torch.tensor([[2.0, 0.0], [1.0, 3.0]]).view(1, 2, 1, 2)
    maps = F.conv2d(torch.cat([image, mirror]), weight)
    assert fused_cam([maps], torch.ones(1), (1, 2))[0, 0].tolist() == pytest.approx([1.0, 0.0], abs=2e-5)


def test_relu_comes_before_the_sum_of_mirrors_and_scales_are_summed():
    first = torch.tensor([[[[1.0, -3.0]], [[0.0, 2.0]]], [[[2.0, 1.0]], [[0.0, 0.0]]]])
    second = torch.full((2, 2, 1, 1), 1.0)
    tags = torch.tensor([1.0, 0.0])
    found = fused_cam([first, second], tags, (1, 2))
    # Image [1,0] plus turned mirror [1,2] plus the second scale's 2: [4,4].
    assert found[0, 0].tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    both = fused_cam([first], torch.ones(2), (1, 2))
    assert both[:, 0].tolist() == [pytest.approx([1.0, 1.0], abs=1e-5), pytest.approx([0.0, 1.0], abs=1e-5)]


def test_the_maximum_is_that_of_what_is_left_of_the_padding():
    maps = torch.tensor([1.0, 2.0, 8.0]).view(1, 1, 1, 3).repeat(2, 1, 1, 1)
    maps[1] = maps[1].flip(-1)
    assert fused_cam([maps], torch.ones(1), (1, 3), crop=(1, 2))[0, 0].tolist() == pytest.approx([0.5, 1.0], abs=1e-5)


def test_an_image_without_class_has_no_map():
    assert fused_cam([torch.rand(2, 3, 4, 5)], torch.zeros(3), (8, 9)).shape == (0, 8, 9)
    assert not fused_cam([torch.full((2, 1, 2, 2), -1.0)], torch.ones(1), (4, 4)).any()
    with pytest.raises(ValueError, match="no maps"):
        fused_cam([], torch.ones(1), (4, 4))


def five(height: int, width: int, dims=(4, 8, 8, 8, 8)) -> list[torch.Tensor]:
    """Maps of a 7x7-stem ResNet on an image of that size: strides 4, 4, 8, 16, 16."""
    return [torch.rand(2, d, *strided_size((height, width), s)) for d, s in zip(dims, (4, 4, 8, 16, 16), strict=True)]


def test_parameters_of_the_card():
    """irn.md 2.4."""
    assert sum(p.numel() for p in EdgeHead().parameters()) == 125_409
    assert sum(p.numel() for p in DisplacementHead().parameters()) == 1_269_120


def test_heads_give_the_second_map_s_size_also_of_odd_images():
    for size in ((64, 64), (75, 101), (33, 50)):
        maps = five(*size)
        assert EdgeHead((4, 8, 8, 8, 8))(maps).shape == (2, 1, *strided_size(size, 4))
        assert DisplacementHead((4, 8, 8, 8, 8))(maps).shape == (2, 2, *strided_size(size, 4))


def test_upsampling_comes_before_relu():
    """An upsampled step from -1 to 1 is cut at 0 between cells, not rounded off before."""
    torch.manual_seed(0)
    head = EdgeHead((1, 1, 1, 1, 1), width=4)
    x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    branch = head.branches[2]
    torch.nn.init.ones_(branch[0].weight)
    assert branch(x)[0, 0, 0].tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0], abs=1e-4)


def test_a_backbone_of_one_stride_is_lifted():
    maps = [torch.rand(1, 6, 5, 7) for _ in range(5)]
    head = EdgeHead((6,) * 5, (4,) * 5)
    assert head(maps).shape == (1, 1, 20, 28)
    assert head(maps, (18, 27)).shape == (1, 1, 18, 27)
    with pytest.raises(ValueError, match="factor"):
        head(maps, (21, 28))
    with pytest.raises(ValueError, match="built for 5"):
        head(maps[:4])


def test_running_mean_is_subtracted_in_eval_mode_alone():
    head = DisplacementHead((4, 8, 8, 8, 8))
    head.mean.copy_(torch.tensor([1.0, -2.0]))
    maps = five(32, 32)
    learned, found = head.train()(maps), head.eval()(maps)
    assert torch.allclose(learned - found, torch.tensor([1.0, -2.0])[:, None, None].expand(2, 2, 8, 8), atol=1e-5)
