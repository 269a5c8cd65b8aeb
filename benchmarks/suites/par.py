"""Pixel-adaptive refinement next to its published form: 48 stacked neighbours by one-channel dilated convolutions."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Case
from benchmarks.reference.par import par as plain_par
from methods.parts.ops.par import par


def cases(quick: bool) -> list[Case]:
    """One image at 448 pixels with 3 and 21 channels, ten iterations; quick: 64 pixels."""
    size = 64 if quick else 448

    def case(channels: int, goal: float) -> Case:
        @functools.cache
        def inputs() -> tuple[Tensor, Tensor]:
            rng = torch.Generator().manual_seed(0)
            coarse = torch.rand(1, 3, size // 16, size // 16, generator=rng)
            image = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
            image = (image + 0.02 * torch.randn(image.shape, generator=rng)).clamp(0, 1)
            return image, torch.rand(1, channels, size, size, generator=rng).softmax(dim=1)

        def equal() -> str:
            image, scores = (x[..., :64, :64].contiguous() for x in inputs())
            worst = float((par(image, scores) - plain_par(image, scores)).abs().max())
            assert worst < 1e-5, f"{worst:.1e} apart"
            return f"largest difference {worst:.0e}"

        def agree(one: Tensor, other: Tensor) -> str:
            worst = float((one - other).abs().max())
            assert worst < 1e-5, f"{worst:.1e} apart"
            return f"largest difference {worst:.0e}"

        return Case(
            f"par {channels} channels",
            lambda: plain_par(*inputs()),
            lambda: par(*inputs()),
            equal,
            None if quick else goal,
            agree=agree,
            prepare=inputs,
            unit=f"1 image of {size}x{size}",
        )

    return [case(3, 15.0), case(21, 30.0)]
