"""ToCo's views: what is aligned with what, what is padded, and that draws come from the generator alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from harness.api.dataset import Sample
from methods.toco.config import TocoConfig
from methods.toco.views import TocoViews

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
PLAIN = {
    "jitter_probability": 0.0,
    "grey_probability": 0.0,
    "blur_view1": 0.0,
    "blur_view2": 0.0,
    "blur_local": 0.0,
    "solarise_probability": 0.0,
}
ALL = ("view1", "view2", "local")


def views(names=ALL, crop=48, **knobs):
    return TocoViews(names, crop, TocoConfig(**{**PLAIN, **knobs}), MEAN, STD)


def sample(height=40, width=60, seed=0):
    image = np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)
    return Sample("a", image, np.ones(3, np.float32))


def made(seed, transform=None, data=None):
    return (transform or views())(data or sample(), np.random.default_rng(seed))


def pixels(view):
    return (view * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def test_shapes_kinds_and_pickling():
    transform = pickle.loads(pickle.dumps(views()))
    found = transform(sample(), np.random.default_rng(0))
    assert set(found.views) == set(ALL)
    assert all(v.shape == (3, 48, 48) and v.dtype == torch.float32 for v in found.views.values())
    assert found.content_HW.shape == (48, 48)
    assert found.content_HW.dtype == torch.bool
    assert found.label_HW is None
    assert set(made(0, views(("view1",))).views) == {"view1"}


def test_the_same_generator_gives_the_same_views_and_another_others():
    full = TocoViews(ALL, 48, TocoConfig(), MEAN, STD)
    one, same, other = made(3, full), made(3, full), made(4, full)
    assert all(torch.equal(one.views[n], same.views[n]) for n in ALL)
    assert torch.equal(one.content_HW, same.content_HW)
    assert not torch.equal(one.views["view1"], other.views["view1"])


@pytest.mark.parametrize("seed", range(8))
def test_content_marks_real_pixels_and_the_local_source_is_aligned(seed):
    """toco.md 7.1, fixed: image values are 1..255 and padding 0, so that real pixels can be told."""
    found = made(seed, views(scale_min=0.5, scale_max=0.7))
    real = pixels(found.views["view1"]).sum(dim=0) > 0.5
    assert torch.equal(found.content_HW, real)
    assert not real.all()
    assert torch.equal(found.views["local"], found.views["view1"])


def test_published_flips_leave_box_and_local_source_behind():
    """toco.md 7.1: view 1 and the local source are mirrored apart, each half of the time, the box never."""
    transform = views(separate_flips=True, scale_min=0.5, scale_max=0.7)
    boxes = locals_ = 0
    for seed in range(60):
        found = made(seed, transform)
        real = pixels(found.views["view1"]).sum(dim=0) > 0.5
        assert torch.equal(found.content_HW, real) or torch.equal(found.content_HW, real.flip(-1))
        boxes += int(not torch.equal(found.content_HW, real))
        view, local = found.views["view1"], found.views["local"]
        assert torch.equal(local, view) or torch.equal(local, view.flip(-1))
        locals_ += int(not torch.equal(local, view))
    assert 18 <= boxes <= 42
    assert 18 <= locals_ <= 42


def test_both_variants_draw_the_same_crop():
    one, other = made(5), made(5, views(separate_flips=True))
    assert torch.equal(one.views["view1"], other.views["view1"])
    assert torch.equal(one.views["view2"], other.views["view2"])


def test_colour_of_view1_and_the_local_source_is_drawn_apart():
    found = made(0, views(jitter_probability=1.0))
    assert not torch.allclose(found.views["view1"], found.views["local"])


@pytest.mark.parametrize(
    ("knob", "changed"),
    [("blur_view1", {"view1"}), ("blur_view2", {"view2"}), ("blur_local", {"local"}),
     ("solarise_probability", {"view2"}), ("grey_probability", set(ALL))],
)  # fmt: skip
def test_each_probability_belongs_to_its_views(knob, changed):
    """At probability 1 each image is changed; a draw more shifts no other one's."""
    before, after = made(1), made(1, views(**{knob: 1.0, "blur_radius_min": 1.0}))
    # A blur draws its radius: views behind it get other draws, so that only earlier ones can be held against it.
    earlier = {"view1": (), "local": ("view1",), "view2": ("view1", "local")}
    for name in changed:
        assert not torch.allclose(before.views[name], after.views[name]), name
    if len(changed) == 1:
        for name in earlier[next(iter(changed))]:
            assert torch.equal(before.views[name], after.views[name]), name


def test_grey_and_solarised_views_are_what_they_say():
    grey = pixels(made(2, views(grey_probability=1.0)).views["view1"])
    assert torch.allclose(grey[0], grey[1], atol=0.51)
    one, other = (pixels(made(2, views(solarise_probability=p)).views["view2"]).round() for p in (0.0, 1.0))
    assert torch.equal(other, torch.where(one >= 128, 255 - one, one))


def test_factors_follow_the_crop_where_they_should():
    """A crop of 448 sees VOC's 500 pixels at scale 1; `scale_to_crop` keeps that share at other sizes."""
    data = sample(300, 500)
    fixed = {"scale_min": 0.8, "scale_max": 0.8, "flip_probability": 0.0}
    small = made(0, views(crop=112, scale_to_crop=True, **fixed), data)
    # .8 x 112 x 500/448 = 100 pixels wide, 60 high: both fit.
    rows, columns = small.content_HW.any(dim=1).sum(), small.content_HW.any(dim=0).sum()
    assert (int(rows), int(columns)) == (60, 100)
    literal = made(0, views(crop=112, **fixed), data)
    assert literal.content_HW.all(), "240 x 400 pixels fill the crop"
    card = made(0, views(crop=448, scale_to_crop=True, **fixed), data)
    assert int(card.content_HW.any(dim=0).sum()) == 400
