"""Views of IRN's recipes."""

from __future__ import annotations

import numpy as np
import torch

from harness.api.dataset import Sample
from methods.parts.views.placed_views import PlacedViews, ScaledViews

NORM = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def sample(height: int, width: int, label: bool = True) -> Sample:
    image = np.full((height, width, 3), 200, np.uint8)
    mask = np.full((height, width), 3, np.uint8)
    return Sample("a", image, np.ones(2, np.float32), mask if label else None)


def test_the_long_side_is_uniform_and_the_rest_is_marked():
    """sipe.md 2.1: 320 to 640 of 512, padding 0 after normalisation."""
    views = PlacedViews(crop=64, **NORM)
    rng = np.random.default_rng(0)
    widths, firsts = [], []
    for _ in range(400):
        found = views(sample(50, 100), rng)
        content = found.content_HW
        assert content is not None
        assert torch.equal(found.views["view1"] != 0, content.expand(3, -1, -1))
        assert found.label_HW is not None
        assert torch.equal(found.label_HW == 3, content)
        assert set(found.label_HW.unique().tolist()) <= {3, 255}
        widths.append(int(content.any(0).sum()))
        firsts.append(int(content.any(1).nonzero()[0]))
        assert int(content.any(1).sum()) in (widths[-1] // 2, (widths[-1] + 1) // 2, *range(32, 41))
    assert min(widths) == 40
    assert max(widths) == 64
    assert 0.33 < np.mean(np.array(widths) == 64) < 0.5, "17 of 41 long sides reach the crop, 320..640 of 512"
    assert min(firsts) == 0
    assert max(firsts) > 30


def test_a_grey_image_is_normalised_where_it_is():
    found = PlacedViews(crop=32, low=1.0, high=1.0, **NORM)(sample(20, 32), np.random.default_rng(1))
    view, content = found.views["view1"], found.content_HW
    expected = (200 / 255 - torch.tensor(NORM["mean"])) / torch.tensor(NORM["std"])
    assert torch.allclose(view[:, content].T, expected.expand(int(content.sum()), 3), atol=1e-6)


def test_scaled_views_have_a_coarse_label_that_follows():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 255
    mask = np.where(image[..., 0] > 0, 1, 0).astype(np.uint8)
    views = ScaledViews(crop=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    rng = np.random.default_rng(2)
    for _ in range(50):
        found = views(Sample("a", image, np.ones(2, np.float32), mask), rng)
        label = found.label_HW
        assert label is not None
        assert label.shape == (8, 8)
        # PIL's nearest looks at the pixel behind the centre of a coarse cell.
        centre = found.views["view1"][0, 2::4, 2::4]
        sure = centre.abs() > 0.99
        assert torch.equal(label[sure] == 1, centre[sure] > 0)
        assert bool((label[(centre == 0) & ~found.content_HW[2::4, 2::4]] == 255).all())


def test_views_without_labels_and_the_same_draw_twice():
    views = ScaledViews(crop=16, **NORM)
    one, other = (views(sample(30, 20, label=False), np.random.default_rng(3)) for _ in range(2))
    assert one.label_HW is None
    assert torch.equal(one.views["view1"], other.views["view1"])
