"""Stochastic depth that is drawn before the passes that use it, so that a pass over the images of several groups drops
what each group's own pass would.

Axes: L residual branches, two for each block, B images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from methods.parts.nets.encoders import Encoder
from methods.parts.tensors import constant


class Depth(NamedTuple):
    """What a group's pass draws."""

    kept_LB: Tensor
    """float32 in {0,1}: which branches are kept."""
    views: int
    """How many views of the group's images the pass has, those of one kind behind those of another."""


def draw_depth(encoder: Encoder, images: int, like: Tensor, views: int = 1) -> Depth | None:
    """Which branches a pass over `views` of so many images keeps, on the device of `like`, drawn as the pass itself
    would; None where it draws none.

    Raises ValueError for an encoder whose draws cannot be foretold.
    """
    rates = encoder.drops
    if rates is None:
        raise ValueError(f"what {type(encoder).__name__} draws cannot be drawn beforehand")
    if not encoder.training or not any(rates):
        return None
    kept_LB = torch.ones(len(rates), views * images, device=like.device)
    for kept_B, rate in zip(kept_LB, rates, strict=True):
        if rate > 0:
            kept_B.bernoulli_(1.0 - rate)
    return Depth(kept_LB, views)


def joined_depth(encoder: Encoder, drawn: Sequence[Depth | None]) -> Tensor | None:
    """What branches are multiplied with (L,B) in a pass over the images of several groups, each of which drew its part;
    None where none is dropped. All groups' first views stand before all second ones."""
    depths = [one for one in drawn if one is not None]
    if not depths:
        return None
    kept_LB = depths[0].kept_LB
    if len(depths) > 1:
        by_view = zip(*(one.kept_LB.chunk(one.views, dim=1) for one in depths), strict=True)
        kept_LB = torch.cat([part for view in by_view for part in view], dim=1)
    shares = constant(tuple(1.0 - rate for rate in encoder.drops or ()), kept_LB)
    return kept_LB / shares[:, None]
