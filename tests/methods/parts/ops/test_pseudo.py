"""A5 against a loop over images that follows the specification word for word."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.cam import normalise_cam, threshold_labels
from methods.parts.ops.par import par
from methods.parts.ops.pseudo import pseudo_labels, refined_scores

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def scene(batch: int, classes: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    pixels = F.interpolate(torch.rand(batch, 3, 9, 9, generator=g) * 255, size=(height, width), mode="bilinear")
    cam = F.interpolate(torch.randn(batch, classes, 6, 6, generator=g).relu(), size=(height, width), mode="bilinear")
    return pixels.floor(), normalise_cam(cam)


def loop_labels(pixels, cam, tags, high, low, content=None) -> Tensor:
    """A5 one image and one background score at a time."""
    labels = []
    for b in range(len(cam)):
        size, half = cam.shape[-2:], (cam.shape[-2] // 2, cam.shape[-1] // 2)
        keep = torch.cat([torch.zeros(1, dtype=torch.int64), tags[b].nonzero()[:, 0] + 1])
        image = F.interpolate(pixels[b : b + 1], size=half, mode="bilinear", align_corners=False) / 255
        found = []
        for score in (high, low):
            maps = torch.cat([torch.full((1, 1, *size), score), cam[b : b + 1]], dim=1)
            maps = F.interpolate(maps, size=half, mode="bilinear", align_corners=False)[:, keep].softmax(1)
            maps = F.interpolate(par(image, maps), size=size, mode="bilinear", align_corners=False)
            found.append(keep[maps.argmax(1)[0]])
        label = found[0].clone()
        label[found[0] == 0] = 255
        label[(found[0] == 0) & (found[1] == 0)] = 0
        if content is not None:
            label[~content[b]] = 255
        labels.append(label)
    return torch.stack(labels)


@pytest.mark.parametrize("size", [(48, 48), (40, 62), (33, 47)])
def test_equals_the_loop_over_images(size: tuple[int, int]) -> None:
    pixels, cam = scene(5, 4, *size)
    tags = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0]])
    content = torch.ones(5, *size, dtype=torch.bool)
    content[1, :7] = False
    content[2, :, 30:] = False
    found = pseudo_labels(pixels, cam, tags, high=0.4, low=0.2, content_BHW=content)
    expected = loop_labels(pixels, cam, tags, 0.4, 0.2, content)
    assert found.dtype == torch.int64
    assert (found != expected).sum() <= 2  # ties within round-off
    assert set(expected.unique().tolist()) == {0, 1, 2, 3, 4, 255}
    assert (found[1, :7] == 255).all()
    assert (found[3] == 0).all()


def test_no_class_in_any_image_is_background() -> None:
    pixels, cam = scene(2, 3, 20, 20)
    found = pseudo_labels(pixels, cam, torch.zeros(2, 3), high=0.7, low=0.25)
    assert found.shape == (2, 20, 20)
    assert found.count_nonzero() == 0
    content = torch.zeros(2, 20, 20, dtype=torch.bool)
    found = pseudo_labels(pixels, cam, torch.zeros(2, 3), high=0.7, low=0.25, content_BHW=content)
    assert (found == 255).all()
    assert refined_scores(pixels, cam, torch.zeros(2, 3)).count_nonzero() == 0


def test_no_tags_means_every_class() -> None:
    pixels, cam = scene(2, 3, 24, 30)
    ones = torch.ones(2, 3)
    every = pseudo_labels(pixels, cam, None, high=0.6, low=0.3)
    assert torch.equal(every, pseudo_labels(pixels, cam, ones, high=0.6, low=0.3))
    assert torch.equal(refined_scores(pixels, cam, None), refined_scores(pixels, cam, ones))


def test_an_image_does_not_depend_on_its_batch() -> None:
    pixels, cam = scene(4, 5, 32, 32)
    tags = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]])
    whole = pseudo_labels(pixels, cam, tags, high=0.6, low=0.3)
    scores = refined_scores(pixels, cam, tags)
    for b in range(4):
        one = slice(b, b + 1)
        assert torch.equal(whole[one], pseudo_labels(pixels[one], cam[one], tags[one], high=0.6, low=0.3))
        alone = refined_scores(pixels[one], cam[one], tags[one])
        torch.testing.assert_close(scores[one], alone, atol=1e-6, rtol=0)


def test_refined_scores_are_par_without_its_growth() -> None:
    pixels, cam = scene(2, 3, 28, 36)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    found = refined_scores(pixels, cam, tags, iterations=4)
    half = F.interpolate(pixels, size=(14, 18), mode="bilinear", align_corners=False) / 255
    small = F.interpolate(cam, size=(14, 18), mode="bilinear", align_corners=False)
    expected = F.interpolate(par(half, small, 4) / 1.01**4, size=(28, 36), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected * tags[:, :, None, None], atol=2e-6, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1


def test_refinement_keeps_a_constant_score() -> None:
    pixels, _ = scene(1, 1, 26, 26)
    found = refined_scores(pixels, torch.full((1, 1, 26, 26), 0.6), None)
    torch.testing.assert_close(found, torch.full((1, 1, 26, 26), 0.6), atol=2e-6, rtol=0)
    assert (threshold_labels(found, None, low=0.5) == 1).all()


def test_refinement_follows_the_image_edge() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[..., 16:] = 255
    cam = torch.zeros(1, 1, 32, 32)
    cam[..., 20:] = 0.99  # the map misses four columns of the bright object
    label = pseudo_labels(pixels, cam, torch.ones(1, 1), high=0.6, low=0.5)
    assert (label[..., 17:] == 1).all()
    assert (label[..., :15] == 0).all()


def test_exact_ties_go_to_background() -> None:
    pixels, _ = scene(1, 1, 24, 24)
    cam = torch.full((1, 1, 24, 24), 0.4)
    assert (pseudo_labels(pixels, cam, None, high=0.4, low=0.4) == 0).all()
    assert (pseudo_labels(pixels, cam, None, high=0.4, low=0.39) == 255).all()
    assert (pseudo_labels(pixels, cam, None, high=0.39, low=0.3) == 1).all()


def test_bad_input_is_refused() -> None:
    pixels, cam = scene(1, 2, 16, 16)
    with pytest.raises(ValueError, match="above"):
        pseudo_labels(pixels, cam, None, high=0.2, low=0.3)
    with pytest.raises(ValueError, match="differ in size"):
        pseudo_labels(pixels[..., :8], cam, None, high=0.6, low=0.3)


def test_autocast_does_not_matter() -> None:
    pixels, cam = scene(1, 2, 24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pseudo_labels(pixels, cam, None, high=0.6, low=0.3)
        scores = refined_scores(pixels, cam, None)
    assert torch.equal(inside, pseudo_labels(pixels, cam, None, high=0.6, low=0.3))
    assert scores.dtype == torch.float32
    assert torch.equal(scores, refined_scores(pixels, cam, None))


@pytest.mark.parametrize("device", DEVICES)
def test_one_pixel_half_and_device(device: str) -> None:
    pixels, cam = scene(1, 2, 3, 2)
    found = pseudo_labels(pixels.to(device), cam.to(device), None, high=0.6, low=0.3)
    assert found.shape == (1, 3, 2)
    assert found.device.type == device
