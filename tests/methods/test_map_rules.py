"""What IRN and SIPE make of written maps: labels, walks, scores, masks; also of maps in half precision."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F

from methods.irn.config import IrnConfig
from methods.irn.rules import IrnRules
from methods.parts.ops.random_walk import random_walk, walked_masks
from methods.sipe.config import SipeConfig
from methods.sipe.rules import SipeRules

SIZE = (60, 75)
TAGS = torch.tensor([0.0, 1.0, 0.0, 1.0])
IRN, SIPE = IrnRules(IrnConfig(), 512), SipeRules(SipeConfig(), 512)


def written(rules, size=SIZE, seed: int = 0) -> list[torch.Tensor]:
    """Smooth maps at strides 16 of four scales, as a network of VOC's size gives, one of each label."""
    generator = torch.Generator().manual_seed(seed)
    n = len(rules.labels(TAGS))
    coarse = torch.randn(1, n, 4, 5, generator=generator)
    maps = []
    for scale in (1.0, 0.5, 1.5, 2.0):
        hw = (-(-round(scale * size[0]) // 16), -(-round(scale * size[1]) // 16))
        rough = 0.2 * torch.randn(1, n, *hw, generator=generator)
        maps.append((20 * (F.interpolate(coarse, hw, mode="bicubic") + rough)).relu()[0])
    return maps


def edges(size=SIZE) -> torch.Tensor:
    hw = ((size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    field = F.interpolate(torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(9)), hw, mode="bicubic")
    return 0.9 * torch.exp(-((field[0, 0] / 0.2) ** 2))


def test_which_maps_are_kept():
    assert IRN.labels(TAGS).tolist() == [2, 4]
    assert SIPE.labels(TAGS).tolist() == [0, 2, 4]
    assert SIPE.labels(torch.zeros(4)).tolist() == [0]
    assert SipeRules(SipeConfig(maps="cam"), 512).labels(TAGS).tolist() == [2, 4]


def test_irn_s_labels_compare_with_two_constants():
    labels = IRN.labels(TAGS)
    maps = written(IRN)
    found = IRN.confident(maps, labels, SIZE)
    score, best = IRN.full(maps, SIZE).max(0)
    assert found.shape == SIZE
    assert torch.equal(found == 0, score <= 0.05)
    assert torch.equal(found == 255, (score > 0.05) & (score <= 0.3))
    assert torch.equal(found[score > 0.3], labels[best][score > 0.3])
    assert {0, 255, 2, 4} == set(found.unique().tolist())


def test_sipe_s_labels_compare_with_its_own_background():
    labels = SIPE.labels(TAGS)
    maps = written(SIPE)
    found = SIPE.confident(maps, labels, SIZE)
    full = SIPE.full(maps, SIZE)
    strict = full.argmax(0)
    assert torch.equal(found[strict > 0], labels[strict[strict > 0]])
    assert set(found[strict == 0].unique().tolist()) == {0, 255}


def test_the_walk_has_the_knobs_and_masks_follow_scores():
    edge = edges()
    maps = written(IRN)
    knobs = {"rw_beta": 6.0, "rw_steps": 5, "rw_radius": 4.0, "rw_power": 1.5, "rw_damp": False}
    rules = IrnRules(IrnConfig(**knobs), 512)
    walked = rules.walk(maps, edge, SIZE)
    start = rules.start(maps, SIZE, tuple(edge.shape)) ** 1.5
    assert torch.equal(walked, random_walk(start, edge, radius=4.0, beta=6.0, exp_times=5, damp=False))
    mask = IRN.mask(IRN.walk(maps, edge, SIZE), IRN.labels(TAGS), SIZE)
    assert set(mask.unique().tolist()) <= {0, 2, 4}
    score, best = IRN.scores(IRN.walk(maps, edge, SIZE), SIZE).max(0)
    assert torch.equal(mask, torch.where(score > 0.25, IRN.labels(TAGS)[best], 0))
    assert IrnRules(IrnConfig(), 160).walk_radius == 3.0
    assert IRN.crf_numbers == {"gt_prob": 0.7, "bi_rgb_std": 5.0, "bi_xy_std": 50.0}


def test_sipe_s_background_walks_along_and_needs_no_constant():
    edge, maps, labels = edges(), written(SIPE), SIPE.labels(TAGS)
    walked = SIPE.walk(maps, edge, SIZE)
    assert len(walked) == 3
    mask = SIPE.mask(walked, labels, SIZE)
    assert torch.equal(mask, walked_masks(walked, labels, SIZE, background=None))
    scores = SIPE.scores(walked, SIZE)
    score, best = scores.max(0)
    assert float(scores.max()) <= 1
    assert torch.equal(mask, torch.where(score > 0.5, labels[1:][best], 0))


def test_per_map_maxima():
    walked = torch.tensor([[[4.0, 1.0]], [[0.5, 0.2]]])
    walked = walked.repeat_interleave(4, 1)
    labels = torch.tensor([1, 2])
    rules = IrnRules(IrnConfig(rw_norm="class"), 512)
    assert rules.scores(walked, (16, 8)).amax((1, 2)).tolist() == [1.0, 1.0]
    assert IRN.scores(walked, (16, 8)).amax((1, 2)).tolist() == [1.0, 0.125]
    assert 2 in rules.mask(walked, labels, (16, 8)).unique().tolist()
    assert IRN.mask(walked, labels, (16, 8)).unique().tolist() == [0, 1]


@pytest.mark.parametrize("rules", [IRN, SIPE, SipeRules(SipeConfig(maps="cam"), 512)])
def test_half_precision_gives_the_same_labels(rules):
    """A VOC image's maps in half precision are small, and labels differ in less than a thousandth of the pixels."""
    size = (375, 500)
    labels = rules.labels(TAGS)
    different = pixels = 0
    for seed in range(3):
        maps = written(rules, size, seed)
        half = [one.half() for one in maps]
        assert sum(one.nbytes for one in half) < 40_000
        for make in (rules.confident, lambda m, n, s: rules.mask(rules.walk(m, edges(s), s), n, s)):
            one, other = make(maps, labels, size), make(half, labels, size)
            different += int((one != other).sum())
            pixels += one.numel()
    assert different / pixels < 1e-3


@pytest.mark.parametrize("rules", [IRN, SIPE])
def test_an_image_without_class_and_rules_in_another_process(rules):
    rules = pickle.loads(pickle.dumps(rules))
    nothing = torch.zeros(4)
    labels = rules.labels(nothing)
    maps = [torch.rand(len(labels), 4, 5), torch.rand(len(labels), 2, 3)]
    assert not rules.confident(maps, labels, SIZE).any()
    walked = rules.walk(maps, edges(), SIZE)
    assert not rules.mask(walked, labels, SIZE).any()
    assert rules.scores(walked, SIZE).shape == (0, *SIZE)
