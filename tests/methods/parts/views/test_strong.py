"""The strong photometric view (fsae.md 2.1)."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from methods.parts.views import strong
from methods.parts.views.strong import OPERATIONS, strong_view


def photo(height: int = 40, width: int = 56) -> np.ndarray:
    rng = np.random.default_rng(0)
    slope = np.linspace(20, 200, width)[None, :, None] + rng.normal(0, 12, (height, width, 3))
    return slope.clip(0, 255).astype(np.uint8)


def test_nothing_asked_gives_the_image_itself():
    """fsae.md 8.8."""
    image = photo()
    assert strong_view(image, np.random.default_rng(1), n=0, blur=False) is image
    with pytest.raises(ValueError, match="n -1"):
        strong_view(image, np.random.default_rng(1), n=-1)


def test_same_generator_state_gives_the_same_bytes_and_the_source_stays():
    image = photo()
    kept = image.copy()
    one, two, other = (strong_view(image, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.dtype == np.uint8
    assert one.shape == image.shape
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.array_equal(image, kept)
    mirrored = strong_view(image[:, ::-1], np.random.default_rng(5), blur=False)
    assert np.array_equal(mirrored[:, ::-1], strong_view(image, np.random.default_rng(5), blur=False)), "nothing moves"


def expected(name: str, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "colour": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        return enhancers[name](picture).enhance(rng.uniform(0.05, 0.95))
    if name == "posterise":
        return ImageOps.posterize(picture, int(rng.integers(4, 9)))
    if name == "solarise":
        return ImageOps.solarize(picture, int(rng.integers(0, 257)))
    return {"autocontrast": ImageOps.autocontrast, "equalise": ImageOps.equalize}.get(name, lambda p: p)(picture)


def test_the_nine_operations_are_those_of_the_card():
    factors = {"brightness", "colour", "contrast", "sharpness"}
    assert set(OPERATIONS) == factors | {"autocontrast", "equalise", "identity", "posterise", "solarise"}
    picture = Image.fromarray(photo())
    for name, operation in OPERATIONS.items():
        for seed in range(4):
            found = operation(picture, np.random.default_rng(seed))
            assert np.array_equal(found, expected(name, picture, np.random.default_rng(seed))), name


def test_five_operations_are_drawn_with_replacement(monkeypatch):
    seen = []

    def remember(name):
        return lambda picture, rng: seen.append(name) or picture

    monkeypatch.setattr(strong, "OPERATIONS", {name: remember(name) for name in OPERATIONS})
    for seed in range(400):
        strong_view(photo(4, 4), np.random.default_rng(seed), blur=False)
    assert len(seen) == 5 * 400
    counts = [seen.count(name) for name in OPERATIONS]
    assert min(counts) > 170
    assert max(counts) < 275
    assert any(len(set(seen[i : i + 5])) < 5 for i in range(0, 2000, 5))


def test_blur_keeps_the_mean_and_the_spread_falls():
    image = photo()
    stripes = np.zeros((40, 56, 3), np.uint8)
    stripes[:, ::2] = 200
    changed = [strong_view(image, np.random.default_rng(seed), n=0) for seed in range(60)]
    same = sum(np.array_equal(found, image) for found in changed)
    assert 10 <= same <= 35, "a third of the kernels is one pixel, and small deviations change nothing"
    for seed in range(10):
        found = strong_view(stripes, np.random.default_rng(seed), n=0)
        assert float(found[:, 4:-4].mean()) == pytest.approx(float(stripes[:, 4:-4].mean()), abs=1.0)
        assert float(found.std()) <= float(stripes.std())
    point = np.zeros((9, 9, 3), np.uint8)
    point[4, 4] = 255
    reached = {int((strong_view(point, np.random.default_rng(seed), n=0)[..., 0] > 0).sum()) for seed in range(60)}
    assert {1, 9} <= reached
    assert max(reached) <= 25
    assert strong_view(np.zeros((2, 1, 3), np.uint8), np.random.default_rng(0)).shape == (2, 1, 3)
