"""What travels with an image lands where the image does: labels pixel for pixel, maps by hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.api.dataset import Sample
from methods.parts.knobs import ViewKnobs
from methods.parts.views.augment import hflip, label_tensor, pad_crop, random_resized_crop, resize_label, scale_pad_crop
from methods.parts.views.crop_views import CropViews
from methods.parts.views.warp import Warp

NUMBERS = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
"""Rows 0 1 2 3, 4 5 6 7, 8 9 10 11."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is its label map."""
    label = rng(seed).integers(0, 20, (height, width)).astype(np.uint8)
    return np.stack([label] * 3, -1), label


def agree(warp: Warp, label: np.ndarray, cropped: np.ndarray) -> bool:
    """Whether both give equal labels, but where a centre lies on the border of two pixels: there PIL takes either."""
    y, x = (np.abs(at - at.round()) < 1e-6 for at in warp._at(None))
    same = warp.label(label).numpy() == cropped
    return bool((same | y[:, None] | x).all()) and same.mean() > 0.9


def test_a_map_is_cut_and_mirrored_with_the_image() -> None:
    warp = Warp.whole((3, 4)).cut(1, 0, 2, 3).mirrored()
    assert warp.maps(NUMBERS).tolist() == [[[6, 5, 4], [10, 9, 8]]]
    assert warp.label(NUMBERS[0].astype(np.uint8)).tolist() == [[6, 5, 4], [10, 9, 8]]
    assert Warp.whole((3, 4)).mirrored().cut(1, 1, 2, 3).maps(NUMBERS).tolist() == [[[6, 5, 4], [10, 9, 8]]]


def test_what_lies_outside_the_image_is_padding() -> None:
    warp = Warp.whole((3, 4)).cut(-1, 2, 3, 3)
    assert warp.maps(NUMBERS).tolist() == [[[0, 0, 0], [2, 3, 0], [6, 7, 0]]]
    assert warp.label(NUMBERS[0].astype(np.uint8)).tolist() == [[255, 255, 255], [2, 3, 255], [6, 7, 255]]


def test_a_map_of_half_the_resolution_lies_where_the_image_does() -> None:
    coarse = np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32)
    whole = Warp.whole((4, 4))
    expected = F.interpolate(torch.from_numpy(coarse)[None], (4, 4), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(whole.maps(coarse), expected, atol=1e-6)
    # The right half, mirrored, at the map's own resolution: column 1 alone; centres at 3.5 and 2.5 of 4 pixels.
    half = whole.cut(0, 2, 4, 2).mirrored()
    assert torch.allclose(half.maps(coarse, (2, 2)), torch.tensor([[[1.0, 0.75], [3.0, 2.75]]]), atol=1e-6)
    labels = np.array([[7, 8], [9, 10]], np.uint8)
    assert half.label(labels, (2, 2)).tolist() == [[8, 8], [10, 10]]


def test_channels_without_a_score_stay_without() -> None:
    maps = np.concatenate([np.zeros_like(NUMBERS), NUMBERS])
    out = Warp.whole((3, 4)).resized((6, 8)).maps(maps)
    assert out.shape == (2, 6, 8)
    assert not out[0].any()
    assert torch.allclose(out[1], F.interpolate(torch.from_numpy(maps[None]), (6, 8), mode="bilinear")[0, 1], atol=1e-5)
    assert Warp.whole((3, 4)).maps(np.zeros((0, 2, 2), np.float32)).shape == (0, 3, 4)


@pytest.mark.parametrize("seed", range(12))
def test_labels_land_where_the_crops_put_them(seed: int) -> None:
    """The warp of a crop gives its labels pixel for pixel: scaled, mirrored, padded, cut."""
    image, label = picture(seed, 30 + seed, 47 - seed)
    crop = scale_pad_crop(image, label, 40, rng(seed))
    assert crop.warp.size == (40, 40)
    assert agree(crop.warp, label, crop.label_HW)
    inside = crop.warp.maps(np.ones((1, 5, 5), np.float32))[0] > 0
    assert np.array_equal(inside.numpy(), crop.content_HW)


def test_a_padded_crop_alone() -> None:
    image, label = picture(3, 20, 70)
    crop = pad_crop(image, label, 32, rng(5))
    assert torch.equal(crop.warp.label(label), label_tensor(crop.label_HW))


@pytest.mark.parametrize("seed", range(8))
def test_crop_views_hand_on_what_travels_with_the_image(seed: int) -> None:
    """The label map of the sample and the same one as extra come out alike; a map agrees where it is 0 or 1."""
    image, label = picture(seed, 50, 61)
    knobs = ViewKnobs(jitter_probability=0.0)
    views = CropViews(names=("view1", "view2"), crop=24, knobs=knobs, mean=(0, 0, 0), std=(1, 1, 1))
    vector = np.array([1.0, 0.0], np.float32)
    sample = Sample("a", image, vector, label, {"seen": label, "maps": (label[None] > 9) * np.float32(1), "v": vector})
    plain = views(Sample("a", image, vector, label), rng(seed))
    found = views(sample, rng(seed))
    assert torch.equal(found.views["view1"], plain.views["view1"]), "what travels along changes no draw"
    assert (found.extra["seen"] == found.label_HW).float().mean() > 0.9
    assert torch.equal(found.extra["v"], torch.tensor([1.0, 0.0]))
    certain = (found.extra["maps"][0] == 0) | (found.extra["maps"][0] == 1)
    assert certain.float().mean() > 0.05
    assert torch.equal((found.extra["maps"][0] > 0.5)[certain], (found.label_HW > 9)[certain])
    assert plain.extra == {}


def test_the_steps_of_a_warp_are_those_of_the_operations() -> None:
    """Resized crop, mirror: as `random_resized_crop` and `hflip` do to a label map."""
    image, label = picture(1, 40, 40)
    window = (5, 7, 21, 14)
    _, cut = image, resize_label(label[5:26, 7:21], (32, 32))
    assert agree(Warp.whole((40, 40)).cut(*window).resized((32, 32)), label, cut)
    _, mirrored = hflip(image, cut)
    warp = Warp.whole((40, 40)).cut(*window).resized((32, 32)).mirrored()
    assert agree(warp, label, mirrored)
    drawn = random_resized_crop(image, label, 32, (0.2, 1.0), (0.75, 1.33), rng(2))[1]
    assert drawn.shape == (32, 32)
