"""Stochastic depth that is drawn before the passes that use it, so that a pass over the images of several groups drops
what each group's own pass would.

Axes: L residual branches, two for each block, B images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.parts.nets.encoders import Encoder
from methods.parts.tensors import constant


def draw_depth(encoder: Encoder, images: int, like: Tensor) -> Tensor | None:
    """Which branches a pass over so many images keeps, float32 (L,B) in {0,1}, on the device of `like`, drawn as the
    pass itself would; None where it draws none.

    Raises ValueError for an encoder whose draws cannot be foretold.
    """
    rates = encoder.drops
    if rates is None:
        raise ValueError(f"what {type(encoder).__name__} draws cannot be drawn beforehand")
    if not encoder.training or not any(rates):
        return None
    kept_LB = torch.ones(len(rates), images, device=like.device)
    for kept_B, rate in zip(kept_LB, rates, strict=True):
        if rate > 0:
            kept_B.bernoulli_(1.0 - rate)
    return kept_LB


def joined_depth(encoder: Encoder, drawn: Sequence[Tensor | None], parts: int = 1) -> Tensor | None:
    """What branches are multiplied with (L,B) in a pass over the images of several groups; None where none is dropped.

    `drawn` of each group, by `draw_depth` over `parts` views of its images; in the pass, as in a group's own, the first
    views of all images stand before the second ones.
    """
    tables = [kept_LB for kept_LB in drawn if kept_LB is not None]
    if not tables:
        return None
    if len(tables) > 1:
        by_part = zip(*(kept_LB.chunk(parts, dim=1) for kept_LB in tables), strict=True)
        tables = [torch.cat([one for part in by_part for one in part], dim=1)]
    shares = constant(tuple(1.0 - rate for rate in encoder.drops or ()), tables[0])
    return tables[0] / shares[:, None]
