"""UniA's label maps: the truth table of unia.md 8.6, and both refined maps against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from methods.parts.ops.cam import resize
from methods.parts.ops.par import par
from methods.parts.ops.pseudo import pseudo_labels
from methods.parts.ops.refinement import mutual_refinement, par_and_affinity_labels

TABLE = [
    ((5, 5, 7), 5),
    ((5, 7, 0), 7),
    ((0, 7, 255), 7),
    ((255, 255, 0), 0),
    ((0, 0, 7), 7),
    ((255, 0, 255), 255),
    ((5, 255, 7), 7),
]


def refined(*maps, **words):
    return mutual_refinement(*(torch.tensor([m]) for m in maps), **words).item()


@pytest.mark.parametrize(("maps", "label"), TABLE)
def test_truth_table_of_the_card(maps, label):
    """unia.md 8.6: (P,R,A) -> L after prior_start."""
    assert refined(*maps, prior=True) == label


def test_before_the_prior_and_with_the_rule_of_acdc():
    assert refined(5, 5, 7, prior=False) == 7
    assert refined(5, 5, 0, prior=False) == 5
    assert refined(5, 255, 7, prior=True, trust_cam=True) == 5
    assert refined(5, 255, 7, prior=False, trust_cam=True) == 5
    assert refined(0, 255, 7, prior=True, trust_cam=True) == 7
    assert refined(255, 255, 0, prior=True, trust_cam=True) == 0
    assert refined(5, 0, 7, prior=True, trust_cam=True) == 7


def test_every_combination_against_the_rules_spelt_out():
    values = [0, 1, 2, 255]
    maps = torch.cartesian_prod(*(torch.tensor(values),) * 3)
    for prior in (False, True):
        for trust in (False, True):
            found = mutual_refinement(*maps.T, prior=prior, trust_cam=trust)
            for (p, r, a), label in zip(maps.tolist(), found.tolist(), strict=True):
                want = r if a in (0, 255) and r not in (0, 255) else a
                if prior and p not in (0, 255) and r == p:
                    want = p
                if trust and r == 255 and p not in (0, 255):
                    want = p
                assert label == want, (p, r, a)


def scene():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 24, 32)).float()
    cam = resize(torch.rand(3, 4, 6, 8), (24, 32))
    tags = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    affinity = 0.02 * torch.rand(3, 12, 12) + torch.eye(12)
    return pixels, cam, tags, affinity + affinity.transpose(1, 2), (3, 4)


WORDS = {"high": 0.6, "low": 0.3, "dilations": (1, 2), "iterations": 3}


def test_par_labels_are_a5():
    pixels, cam, tags, affinity, hw = scene()
    found, _ = par_and_affinity_labels(pixels, cam, tags, affinity, hw, **WORDS)
    assert torch.equal(found, pseudo_labels(pixels, cam, tags, **WORDS))


def loop_affinity_labels(pixels, cam, tags, affinity, hw):
    """unia.md 2.5 A_lab, image by image and threshold by threshold."""
    size, half = cam.shape[-2:], (12, 16)
    labels = torch.zeros(len(cam), *size, dtype=torch.int64)
    for b in range(len(cam)):
        present = [c for c in range(cam.shape[1]) if tags[b, c]]
        ids = torch.tensor([0, *(c + 1 for c in present)])
        found = []
        for score in (WORDS["high"], WORDS["low"]):
            stack = torch.cat([torch.full_like(cam[b : b + 1, :1], score), cam[b : b + 1, present]], dim=1)
            shares = resize(stack, hw).softmax(dim=1)
            moved = torch.einsum("kn,nm->km", shares[0].flatten(1), affinity[b]).view(1, -1, *hw)
            moved = F.interpolate(moved, size=half, mode="bilinear", align_corners=False)
            image = resize(pixels[b : b + 1] / 255, half)
            scores = resize(par(image, moved, WORDS["iterations"], WORDS["dilations"]), size)
            found.append(ids[scores[0].argmax(dim=0)])
        labels[b] = torch.where(found[0] > 0, found[0], torch.where(found[1] > 0, 255, 0))
    return labels


def test_affinity_labels_against_the_loop():
    pixels, cam, tags, affinity, hw = scene()
    _, found = par_and_affinity_labels(pixels, cam, tags, affinity, hw, **WORDS)
    assert torch.equal(found, loop_affinity_labels(pixels, cam, tags, affinity, hw))
    assert len(found.unique()) > 3


def test_an_affinity_of_one_place_only_is_the_plain_threshold():
    pixels, cam, tags, _, hw = scene()
    _, found = par_and_affinity_labels(pixels, cam, tags, torch.eye(12).expand(3, -1, -1), hw, **WORDS)
    assert torch.equal(found, loop_affinity_labels(pixels, cam, tags, torch.eye(12).expand(3, -1, -1), hw))
    assert not found[2].any(), "no tags: all background"


def test_no_tags_padding_and_wrong_thresholds():
    pixels, cam, tags, affinity, hw = scene()
    content = torch.ones(3, 24, 32, dtype=torch.bool)
    content[:, :, 20:] = False
    for maps in (
        par_and_affinity_labels(pixels, cam, tags, affinity, hw, content_BHW=content, **WORDS),
        par_and_affinity_labels(pixels, cam, 0 * tags, affinity, hw, content_BHW=content, **WORDS),
    ):
        for label in maps:
            assert (label[:, :, 20:] == 255).all()
    assert not label[:, :, :20].any()
    with pytest.raises(ValueError, match="above"):
        par_and_affinity_labels(pixels, cam, tags, affinity, hw, **{**WORDS, "low": 0.7})
