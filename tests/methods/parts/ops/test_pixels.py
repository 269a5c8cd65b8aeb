"""A1: pixels survive the round trip through normalisation."""

from __future__ import annotations

import pytest
import torch

from methods.parts.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, denormalise

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, HALF])
def test_every_level_comes_back(mean, std) -> None:
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    normalised = (levels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = denormalise(normalised, mean, std)
    assert torch.equal(found, levels)
    assert found.dtype == torch.float32


def test_parts_of_a_level_are_truncated_and_the_range_is_kept() -> None:
    levels = torch.tensor([10.9, 254.99, 255.4, -3.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    found = denormalise(levels / 127.5 - 1, *HALF)
    assert found[0, 0, 0].tolist() == [10, 254, 255, 0]


def test_imagenet_numbers_of_the_card() -> None:
    """A1: means 123.675/116.28/103.53 and deviations 58.395/57.12/57.375 of 0..255."""
    assert [255 * m for m in IMAGENET_MEAN] == pytest.approx([123.675, 116.28, 103.53])
    assert [255 * s for s in IMAGENET_STD] == pytest.approx([58.395, 57.12, 57.375])
