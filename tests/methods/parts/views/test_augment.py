"""View operations against torchvision's on the same factors, and their draws against its rules."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from methods.parts.views import augment as A
from methods.parts.views.colour import Jitter

RATIO = (3 / 4, 4 / 3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def photo(height: int = 53, width: int = 71, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with edges and saturated spots."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / (5 + i) + y / (9 - 2 * i)) for i in range(3)]
    image = np.stack(waves, -1)
    image[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 3)
    return (image + rng(seed).normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def labels_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (image[..., 0] // 64).astype(np.uint8)


class Drawn:
    """A generator that gives these numbers: the window of torchvision is drawn from the same."""

    def __init__(self, uniform: list[float], integers: list[int]):
        self._uniform, self._integers = iter(uniform), iter(integers)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._uniform)

    def integers(self, low: int, high: int) -> int:
        return low + next(self._integers) % (high - low)


@pytest.mark.parametrize("seed", range(30))
def test_crop_windows_follow_torchvision_for_the_same_numbers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    height, width = draw.choice([(213, 320), (320, 213), (30, 200), (200, 30), (64, 64)])
    uniform = [draw.random() for _ in range(20)]
    integers = [draw.randrange(10**6) for _ in range(2)]
    ours = A.crop_window(height, width, (0.32, 1.0), RATIO, Drawn(uniform, integers))
    numbers, places = iter(uniform), iter(integers)

    class FakeTensor:
        def __init__(self, shape: int):
            pass

        def uniform_(self, low: float, high: float) -> torch.Tensor:
            return torch.tensor(float(low) + (float(high) - float(low)) * next(numbers), dtype=torch.float64)

    def randint(low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([low + next(places) % (high - low)])

    monkeypatch.setattr(torch, "empty", FakeTensor)
    monkeypatch.setattr(torch, "randint", randint)
    theirs = T.RandomResizedCrop.get_params(Image.new("RGB", (width, height)), [0.32, 1.0], list(RATIO))
    assert ours == pytest.approx(theirs, abs=1)  # torchvision takes the aspect's logarithm in float32
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 3


def test_crop_windows_stay_inside_and_keep_area_and_aspect() -> None:
    generator = rng(1)
    areas, aspects = [], []
    for _ in range(4000):
        top, left, h, w = A.crop_window(213, 320, (0.32, 1.0), RATIO, generator)
        assert 0 <= top <= 213 - h
        assert 0 <= left <= 320 - w
        areas.append(h * w / (213 * 320))
        aspects.append(w / h)
    assert 0.31 < min(areas) < 0.34
    assert max(areas) <= 1
    assert 0.74 < min(aspects) < 0.77
    assert 1.30 < max(aspects) < 1.36


@pytest.mark.parametrize(
    ("size", "window"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((90, 100), (0, 0, 90, 100))]
)
def test_when_ten_tries_fail_the_centre_is_taken(size: tuple[int, int], window: tuple[int, ...]) -> None:
    assert A.crop_window(*size, (4.0, 5.0), RATIO, rng()) == window


def test_resized_crop_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo()
    label = labels_of(image)
    for seed in range(8):
        top, left, h, w = A.crop_window(53, 71, (0.2, 1.0), RATIO, rng(seed))
        ours, ours_label = A.random_resized_crop(image, label, 40, (0.2, 1.0), RATIO, rng(seed))
        theirs = F.resized_crop(Image.fromarray(image), top, left, h, w, [40, 40], T.InterpolationMode.BICUBIC)
        theirs_label = F.resized_crop(Image.fromarray(label), top, left, h, w, [40, 40], T.InterpolationMode.NEAREST)
        assert np.array_equal(ours, np.asarray(theirs))
        assert np.array_equal(ours_label, np.asarray(theirs_label))


@pytest.mark.parametrize(
    ("name", "operation", "factors"),
    [
        ("brightness", F.adjust_brightness, (0.6, 1.0, 1.4)),
        ("contrast", F.adjust_contrast, (0.6, 1.0, 1.4)),
        ("saturation", F.adjust_saturation, (0.0, 0.8, 1.2)),
        ("hue", F.adjust_hue, (-0.5, -0.1, -0.003, 0.0, 0.07, 0.5)),
    ],
)
def test_each_colour_change_is_torchvisions(name: str, operation: object, factors: tuple[float, ...]) -> None:
    image = photo()
    for factor in factors:
        ours = A.apply_jitter(image, Jitter(((name, factor),)))
        assert np.array_equal(ours, np.asarray(operation(Image.fromarray(image), factor))), factor


def test_a_whole_jitter_is_torchvisions_in_every_order() -> None:
    image = photo()
    operations = {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
    }
    orders = set()
    for seed in range(60):
        jitter = A.draw_jitter(0.4, 0.4, 0.2, 0.1, rng(seed))
        orders.add(tuple(name for name, _ in jitter.steps))
        picture = Image.fromarray(image)
        for name, factor in jitter.steps:
            picture = operations[name](picture, factor)
        assert np.array_equal(A.color_jitter(image, 0.4, 0.4, 0.2, 0.1, rng(seed)), np.asarray(picture))
    assert len(orders) > 20


def test_jitter_factors_fill_torchvisions_ranges() -> None:
    theirs = T.ColorJitter(0.4, 1.5, (0.8, 0.9), 0.1)
    expected = {
        "brightness": theirs.brightness,
        "contrast": theirs.contrast,
        "saturation": theirs.saturation,
        "hue": theirs.hue,
    }
    assert expected["contrast"] == (0.0, 2.5)
    generator = rng(3)
    drawn = [dict(A.draw_jitter(0.4, 1.5, (0.8, 0.9), 0.1, generator).steps) for _ in range(2000)]
    for name, (low, high) in expected.items():
        values = np.array([factors[name] for factors in drawn])
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert A.draw_jitter(0, 0, 0, 0, generator).steps == ()
    assert [name for name, _ in A.draw_jitter(0, 0.4, 0, 0, generator).steps] == ["contrast"]


def test_grey_solarise_and_blur_are_pils() -> None:
    image = photo()
    picture = Image.fromarray(image)
    assert np.array_equal(A.grayscale(image), np.asarray(F.to_grayscale(picture, 3)))
    assert np.array_equal(A.solarize(image), np.asarray(F.solarize(picture, 128)))
    blurred = A.gaussian_blur(image, (0.1, 2.0), rng(5))
    radius = rng(5).uniform(0.1, 2.0)
    assert np.array_equal(blurred, np.asarray(picture.filter(ImageFilter.GaussianBlur(radius))))


@pytest.mark.parametrize(("mean", "std"), [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)])
def test_tensors_are_torchvisions_to_the_bit(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    every = np.stack(np.meshgrid(np.arange(256), np.arange(3), indexing="ij")[:1] * 3, -1).astype(np.uint8)
    for image in (every, photo(), photo()[:, ::-1]):
        theirs = F.normalize(F.to_tensor(np.ascontiguousarray(image)), mean, std)
        ours = A.to_tensor_normalised(image, mean, std)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_flip_mirrors_both_about_half_the_time() -> None:
    image = photo()
    label = labels_of(image)
    generator = rng(2)
    flips = 0
    for _ in range(1000):
        ours, ours_label = A.random_hflip(image, label, generator)
        flipped = ours[0, 0].tolist() != image[0, 0].tolist()
        flips += flipped
        assert np.array_equal(ours, image[:, ::-1] if flipped else image)
        assert np.array_equal(ours_label, label[:, ::-1] if flipped else label)
    assert 440 < flips < 560


@pytest.mark.parametrize("shape", [(53, 71), (20, 71), (53, 20), (12, 9), (40, 40)])
def test_padded_crops_hold_the_picture_in_their_box_and_nothing_else(shape: tuple[int, int]) -> None:
    image = np.maximum(photo(*shape), 1)
    image[..., 0] = np.arange(shape[0])[:, None] + 1  # each pixel names its row and column
    image[..., 1] = np.arange(shape[1])[None] + 1
    label = (image[..., 0] % 7).astype(np.uint8)
    offsets = set()
    for seed in range(40):
        crop = A.pad_crop(image, label, 40, rng(seed))
        top, left, h, w = crop.box
        assert crop.image_HW3.shape == (40, 40, 3)
        assert h >= min(40, shape[0]) or shape[0] < 40
        assert crop.content_HW.sum() == h * w
        assert crop.content_HW[top : top + h, left : left + w].all()
        assert (crop.image_HW3[~crop.content_HW] == 0).all()
        assert (crop.label_HW[~crop.content_HW] == 255).all()
        row, column = crop.image_HW3[top, left, :2].astype(int) - 1
        assert np.array_equal(crop.image_HW3[top : top + h, left : left + w], image[row : row + h, column : column + w])
        assert np.array_equal(crop.label_HW[top : top + h, left : left + w], label[row : row + h, column : column + w])
        assert (h, w) == (min(40, shape[0]), min(40, shape[1]))
        offsets.add((top, left, row, column))
    assert len(offsets) > 10 or shape == (40, 40)


def test_scale_pad_crop_is_its_three_parts_in_order() -> None:
    image = photo()
    label = labels_of(image)
    for seed in range(6):
        crop = A.scale_pad_crop(image, label, 48, rng(seed))
        generator = rng(seed)
        factor = generator.uniform(0.5, 2)
        size = (int(53 * factor), int(71 * factor))
        scaled = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        marked = np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
        if generator.random() < 0.5:
            scaled, marked = scaled[:, ::-1], marked[:, ::-1]
        whole = A.pad_crop(scaled, marked, 48, generator)
        assert np.array_equal(crop.image_HW3, whole.image_HW3)
        assert np.array_equal(crop.label_HW, whole.label_HW)
        assert crop.box == whole.box
    assert A.scale_pad_crop(image, None, 48, rng()).label_HW is None


def test_labels_keep_their_values_and_stay_in_place() -> None:
    label = np.full((60, 60), 255, np.uint8)
    label[:30] = 7
    image = np.repeat(label[..., None], 3, 2)
    for seed in range(20):
        view, marked = A.random_resized_crop(image, label, 32, (0.3, 1.0), RATIO, rng(seed))
        assert set(np.unique(marked)) <= {7, 255}
        assert (np.abs(view[..., 0].astype(int) - marked) < 128).mean() > 0.96
    tensor = A.label_tensor(label[:, ::-1])
    assert tensor.dtype == torch.int64
    assert A.label_tensor(None) is None


def test_nothing_draws_from_a_global_generator_or_writes_to_its_input() -> None:
    image = photo()
    image.setflags(write=False)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    for _ in range(2):
        generator = rng(9)
        view, _ = A.random_resized_crop(image, None, 32, (0.3, 1.0), RATIO, generator)
        view = A.color_jitter(A.random_hflip(view, None, generator)[0], 0.4, 0.4, 0.2, 0.1, generator)
        view = A.solarize(A.gaussian_blur(A.grayscale(view), (0.1, 2.0), generator))
        crop = A.scale_pad_crop(image, None, 32, generator)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    assert math.isclose(crop.content_HW.mean(), crop.box[2] * crop.box[3] / 32**2)


def test_frozen_draws() -> None:
    """Any change here changes the bytes of every training run: raise the versions of the methods' views."""
    assert A.crop_window(213, 320, (0.32, 1.0), RATIO, rng(0)) == (6, 152, 177, 134)
    assert A.draw_jitter(0.4, 0.4, 0.2, 0.1, rng(0)).steps == (
        ("saturation", 1.125308095680109),
        ("brightness", 0.6327788191489557),
        ("contrast", 0.6132221084228232),
        ("hue", 0.08255111545554436),
    )
