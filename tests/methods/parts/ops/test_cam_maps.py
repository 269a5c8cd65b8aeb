"""A3 and A4 against hand numbers and a loop restatement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.cam import (
    best_class,
    gather_classes,
    multi_scale_cam,
    normalise_cam,
    present_classes,
    resize,
    scatter_classes,
    threshold_labels,
)

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]
A = [0.1, 0.25, 0.26, 0.5, 0.7, 0.71]
B = [0.05, 0.3, 0.26, 0.9, 0.2, 0.0]


def hand_cam(device: str = "cpu") -> Tensor:
    return torch.tensor([[[A], [B]]], device=device)


def loop_fusion(fn, images: Tensor, scales, relu_first: bool) -> Tensor:
    """A3 restated with one image, one class and one pass at a time."""
    height, width = images.shape[-2:]
    out = []
    for image in images:
        total = None
        for scale in scales:
            size = (int(scale * height), int(scale * width))
            scaled = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)
            maps = []
            for mirrored in (False, True):
                raw = fn(scaled.flip(-1) if mirrored else scaled)
                raw = raw.clamp(min=0) if relu_first else raw
                full = F.interpolate(raw, size=(height, width), mode="bilinear", align_corners=False)
                maps.append(full.flip(-1) if mirrored else full)
            fused = torch.stack(maps).amax(0).clamp(min=0)
            total = fused if total is None else total + fused
        for c in range(total.shape[1]):
            plane = total[0, c] - total[0, c].min()
            total[0, c] = plane / (plane.max() + 1e-5)
        out.append(total[0])
    return torch.stack(out)


def maps_of(images: Tensor) -> Tensor:
    """A small map network that is not symmetric under mirroring: (B,3,H,W) -> (B,4,H/8,W/8)."""
    weight = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return F.conv2d(images, weight, stride=8)


def test_normalise_is_zero_to_just_below_one() -> None:
    cam = normalise_cam(torch.tensor([[[[2.0, 4.0, 6.0]], [[-1.0, -1.0, -1.0]]]]))
    assert cam[0, 0, 0].tolist() == pytest.approx([0.0, 2 / 4.00001, 4 / 4.00001], abs=1e-7)
    assert cam[0, 1].tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("relu_first", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_fusion_equals_the_loop(relu_first: bool, size: tuple[int, int]) -> None:
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    scales = (1.0, 0.5, 1.5)
    found = multi_scale_cam(maps_of, images, scales, relu_first=relu_first)
    assert found.shape == (3, 4, *size)
    assert found.min() >= 0
    assert found.max() < 1
    torch.testing.assert_close(found, loop_fusion(maps_of, images, scales, relu_first), atol=2e-6, rtol=0)


def test_relu_before_the_resize_gives_other_numbers() -> None:
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = multi_scale_cam(maps_of, images, (1.0,), relu_first=True)
    after = multi_scale_cam(maps_of, images, (1.0,), relu_first=False)
    assert (before - after).abs().max() > 0.01


@pytest.mark.parametrize("flip", [False, True])
def test_a_reused_first_map_saves_its_pass_and_changes_nothing(flip: bool) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen: list[int] = []

    def counted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return maps_of(x)

    whole = multi_scale_cam(counted, images, (1.0, 0.5), flip=flip)
    plain, seen[:] = list(seen), []
    first = maps_of(images).requires_grad_()
    reused = multi_scale_cam(counted, images, (1.0, 0.5), flip=flip, first_BChw=first)
    torch.testing.assert_close(reused, whole, atol=1e-6, rtol=0)
    assert (plain, seen) == (([4, 4], [2, 4]) if flip else ([2, 2], [2]))
    assert not reused.requires_grad


def test_tags_zero_absent_classes_and_leave_present_ones() -> None:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    whole = multi_scale_cam(maps_of, images, (1.0, 0.5))
    found = multi_scale_cam(maps_of, images, (1.0, 0.5), tags_BC=tags)
    torch.testing.assert_close(found, whole * tags[:, :, None, None], atol=1e-7, rtol=0)
    none = multi_scale_cam(maps_of, images, (1.0, 0.5), tags_BC=torch.zeros(3, 4))
    assert none.shape == (3, 4, 32, 32)
    assert none.count_nonzero() == 0


def test_bad_scales_are_refused() -> None:
    images = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ValueError, match="at least one"):
        multi_scale_cam(maps_of, images, ())
    with pytest.raises(ValueError, match="first_BChw"):
        multi_scale_cam(maps_of, images, (0.5,), first_BChw=maps_of(images))


def test_fusion_is_single_precision_under_autocast() -> None:
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    raw = maps_of(images).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = multi_scale_cam(lambda x: raw, images, (1.0,), flip=False)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, multi_scale_cam(lambda x: raw.float(), images, (1.0,), flip=False))


@pytest.mark.parametrize("device", DEVICES)
def test_hand_labels(device: str) -> None:
    cam = hand_cam(device)
    one, both = torch.tensor([[1.0, 0.0]], device=device), torch.tensor([[1.0, 1.0]], device=device)
    assert threshold_labels(cam, one, low=0.25, high=0.7).tolist() == [[[0, 0, 255, 255, 255, 1]]]
    assert threshold_labels(cam, both, low=0.25, high=0.7).tolist() == [[[0, 255, 255, 2, 255, 1]]]
    assert threshold_labels(cam, both, low=0.5).tolist() == [[[0, 0, 0, 2, 1, 1]]]
    assert threshold_labels(cam, None, low=0.5).tolist() == [[[0, 0, 0, 2, 1, 1]]]
    assert threshold_labels(cam, torch.zeros_like(one), low=0.25, high=0.7).tolist() == [[[0] * 6]]
    content = torch.tensor([[[True, True, True, False, True, False]]], device=device)
    found = threshold_labels(cam, both, low=0.5, content_BHW=content)
    assert found.tolist() == [[[0, 0, 0, 255, 1, 255]]]
    assert found.dtype == torch.int64
    with pytest.raises(ValueError, match="above"):
        threshold_labels(cam, both, low=0.7, high=0.25)


def test_labels_equal_the_loop_over_pixels() -> None:
    rng = np.random.default_rng(5)
    cam = rng.integers(0, 11, (4, 5, 6, 9)).astype(np.float32) / 10  # coarse steps: ties and exact thresholds
    tags = (rng.random((4, 5)) < 0.4).astype(np.float32)
    tags[2] = 0
    expected = np.zeros((4, 6, 9), np.int64)
    for b, y, x in np.ndindex(4, 6, 9):
        scores = tags[b] * cam[b, :, y, x]
        v, k = scores.max(), int(scores.argmax()) + 1
        expected[b, y, x] = 0 if v <= np.float32(0.3) else 255 if v <= np.float32(0.7) else k
    found = threshold_labels(torch.from_numpy(cam), torch.from_numpy(tags), low=0.3, high=0.7)
    assert np.array_equal(found.numpy(), expected)


def test_best_class_is_a_present_one() -> None:
    cam = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    v, k = best_class(cam, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.equal(v[0], cam[0, 1])
    assert (k[0] == 2).all()
    assert v[1].count_nonzero() == 0
    assert v.dtype == torch.float32
    lone_v, _ = best_class(cam[1:], torch.zeros(1, 3))
    assert lone_v.count_nonzero() == 0


def test_class_selection_round_trip() -> None:
    maps = torch.rand(3, 4, 2, 5, generator=torch.Generator().manual_seed(0)) + 1
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]])
    index, real, _ = present_classes(tags)
    assert index[0].tolist() == [1, 3]
    assert int(index[2, 0]) == 2
    assert real.tolist() == [[True, True], [False, False], [True, False]]
    back = scatter_classes(gather_classes(maps, index) * real[:, :, None, None], index, 4)
    assert torch.equal(back, maps * tags[:, :, None, None])


def test_resize_to_the_same_size_is_the_input() -> None:
    maps = torch.rand(1, 2, 3, 4)
    assert resize(maps, (3, 4)) is maps
    assert resize(maps, (6, 8)).shape == (1, 2, 6, 8)
