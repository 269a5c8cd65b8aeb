"""Labels where two background scores agree. Numbers of irn.md and sipe.md, section 8."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from harness.scoring.crf import PRESETS
from methods.parts.ops.confident_labels import confident_labels, self_background_labels

needs_crf = pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="needs the extra crf")


def test_rule_of_irn():
    """irn.md 8.7."""
    cam = torch.tensor([[[0.6, 0.2, 0.04, 0.30, 0.05]], [[0.1, 0.0, 0.0, 0.1, 0.01]]])
    found = confident_labels(cam, torch.tensor([4, 9]))
    assert found.tolist() == [[4, 255, 0, 255, 0]]
    assert found.dtype == torch.int64
    assert confident_labels(cam, torch.tensor([4, 9]), fg=0.55, bg=0.03).tolist() == [[4, 255, 255, 255, 255]]


def test_rule_of_sipe():
    """sipe.md 8.5."""
    maps = torch.tensor([[[0.6, 0.9, 0.3]], [[0.4, 0.4, 0.4]]])
    assert self_background_labels(maps, torch.tensor([0, 11])).tolist() == [[255, 0, 11]]
    assert self_background_labels(maps, torch.tensor([0, 11]), background_factor=1.0).tolist() == [[0, 0, 11]]


def test_an_image_without_class_is_background():
    assert confident_labels(torch.zeros(0, 2, 3), torch.zeros(0)).tolist() == [[0, 0, 0]] * 2
    assert self_background_labels(torch.rand(1, 2, 3), torch.tensor([0])).tolist() == [[0, 0, 0]] * 2


def test_what_cannot_be():
    with pytest.raises(ValueError, match="above fg"):
        confident_labels(torch.zeros(1, 1, 1), torch.tensor([1]), fg=0.1, bg=0.2)
    with pytest.raises(ValueError, match="label 0"):
        self_background_labels(torch.zeros(2, 1, 1), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="image"):
        confident_labels(torch.ones(1, 1, 1), torch.tensor([1]), crf=PRESETS["irn"])
    with pytest.raises(ValueError, match="gt_prob"):
        PRESETS["toco"].relabel(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.int64), 2)


@needs_crf
def test_the_crf_follows_the_picture_and_keeps_the_rule():
    rng = np.random.default_rng(0)
    inside = np.zeros((40, 50), bool)
    inside[10:30, 15:35] = True
    image = np.where(inside[..., None], [200, 60, 40], [40, 90, 160]) + rng.normal(0, 3, (40, 50, 3))
    image = image.clip(0, 255).astype(np.uint8)
    cam = torch.zeros(1, 40, 50)
    cam[0, 13:33, 18:38] = 0.6
    cam[0, 13:20, 18:38] = 0.2
    plain = confident_labels(cam, torch.tensor([2]))
    refined = confident_labels(cam, torch.tensor([2]), image=image, crf=PRESETS["irn"])
    truth = torch.from_numpy(np.where(inside, 2, 0))
    right = [float(((found == truth) | (found == 255)).float().mean()) for found in (plain, refined)]
    assert right[1] > right[0]
    assert set(refined.unique().tolist()) <= {0, 2, 255}


@needs_crf
def test_labels_that_occur_nowhere_share_the_doubt():
    image = np.full((12, 12, 3), 90, np.uint8)
    index = np.zeros((12, 12), np.int64)
    index[4:8, 4:8] = 1
    for labels in (2, 5):
        found = PRESETS["irn"].relabel(image, index, labels)
        assert found.shape == (12, 12)
        assert set(np.unique(found)) <= {0, 1}
    assert not PRESETS["irn"].relabel(image, 0 * index, 1).any()
