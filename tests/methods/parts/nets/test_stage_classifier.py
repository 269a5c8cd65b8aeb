"""The classifier on five stages."""

from __future__ import annotations

import torch

from methods.parts.nets.stage_classifier import FROZEN, StageClassifier
from methods.parts.nets.stages import build_stages


def test_parameters_of_the_card_and_who_learns():
    """irn.md 3: layer3 and layer4 22.06 M, classifier .04 M."""
    net = StageClassifier(build_stages("resnet50", "random", crop=64), 20)
    net.stages.freeze(FROZEN)
    learned = {n: p.numel() for n, p in net.named_parameters() if p.requires_grad}
    assert learned.pop("classifier.weight") == 20 * 2048
    assert {name.split(".")[1] for name in learned} == {"3", "4"}
    assert round(sum(learned.values()) / 1e6, 2) == 22.06
    maps = net.class_maps(torch.randn(1, 3, 64, 64))
    assert maps.shape == (1, 20, 4, 4)
    maps.mean().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
