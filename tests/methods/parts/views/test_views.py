"""Training views of fsr.md 2.1."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from harness.api.dataset import Sample
from methods.parts.knobs import ViewKnobs
from methods.parts.views.crop_views import CropViews

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
STILL = ViewKnobs(crop_area_min=1.0, flip_probability=0.0, jitter_probability=0.0)


def views(knobs=STILL, crop=16, names=("view1", "view2")):
    return CropViews(names=names, crop=crop, knobs=knobs, mean=MEAN, std=STD)


def sample(side=16, label=False):
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    # The mask is the image's first channel: where it follows the image, pixels agree.
    return Sample("a", image, np.ones(2, np.float32), image[..., 0] if label else None)


def test_without_randomness_a_view_is_the_normalised_image():
    rng = np.random.default_rng(0)
    square = np.zeros((16, 16, 3), np.uint8) + np.array([51, 102, 255], np.uint8)
    found = views()(Sample("a", square, np.zeros(1, np.float32)), rng)
    assert list(found.views) == ["view1", "view2"]
    assert found.label_HW is None
    assert found.content_HW is None
    for view in found.views.values():
        assert view.dtype == torch.float32
        assert view.shape == (3, 16, 16)
        for channel, value in enumerate([(0.2 - 0.5) / 0.2, (0.4 - 0.4) / 0.25, (1.0 - 0.3) / 0.5]):
            torch.testing.assert_close(view[channel], torch.full((16, 16), value), atol=1e-6, rtol=1e-5)


def test_same_generator_state_gives_same_views_and_the_two_views_are_independent():
    make = views(ViewKnobs())
    one, two, other = (make(sample(24), np.random.default_rng(s)).views for s in (3, 3, 4))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["view1"], one["view2"])
    assert not torch.equal(one["view1"], other["view1"])
    alone = views(ViewKnobs(), names=("view1",))(sample(24), np.random.default_rng(3)).views
    assert torch.equal(alone["view1"], one["view1"])


def test_labels_follow_crop_and_flip_of_the_first_view():
    flips = ViewKnobs(crop_area_min=1.0, flip_probability=1.0, jitter_probability=0.0)
    for knobs in (STILL, flips):
        data = sample(label=True)
        found = views(knobs)(data, np.random.default_rng(1))
        pixels = (found.views["view1"][0] * STD[0] + MEAN[0]) * 255
        assert found.label_HW.dtype == torch.int64
        if torch.equal(found.views["view1"], found.views["view2"]):
            torch.testing.assert_close(pixels, found.label_HW.float(), atol=0.01, rtol=0)
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    crops = ViewKnobs(crop_area_min=0.2, jitter_probability=0.0)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        data = Sample("a", np.stack([ramp] * 3, -1), np.zeros(1, np.float32), ramp)
        found = views(crops, crop=32)(data, rng)
        pixels = (found.views["view1"][0] * STD[0] + MEAN[0]) * 255
        assert float((pixels - found.label_HW).abs().max()) <= 8, "bicubic against nearest on a ramp"


def test_knobs_change_the_views():
    base = views(ViewKnobs())(sample(24), np.random.default_rng(2)).views["view1"]
    for knobs in (
        ViewKnobs(crop_area_min=0.9),
        ViewKnobs(flip_probability=0.0 if not torch.equal(base, base.flip(-1)) else 1.0, jitter_probability=1.0),
        ViewKnobs(jitter_probability=0.0),
    ):
        many = [
            torch.equal(
                views(knobs)(sample(24), np.random.default_rng(s)).views["view1"],
                views(ViewKnobs())(sample(24), np.random.default_rng(s)).views["view1"],
            )
            for s in range(8)
        ]
        assert not all(many)
    for name in ("jitter_brightness", "jitter_contrast", "jitter_saturation", "jitter_hue"):
        always, less = ViewKnobs(jitter_probability=1.0), ViewKnobs(jitter_probability=1.0, **{name: 0.0})
        one, other = (views(k)(sample(24), np.random.default_rng(7)).views["view1"] for k in (always, less))
        assert not torch.equal(one, other), name


def test_it_is_picklable():
    make = views(ViewKnobs())
    again = pickle.loads(pickle.dumps(make))
    assert again == make


def test_rules():
    def broken(**knobs):
        return [p.where for p in ViewKnobs(**knobs).problems()]

    assert broken() == []
    assert broken(crop_area_min=0.0) == ["crop_area_min"]
    assert broken(flip_probability=1.1, jitter_hue=0.6) == ["flip_probability", "jitter_hue"]
