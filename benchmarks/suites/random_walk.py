"""The random walk along affinities next to dense matrices squared eight times."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Case
from benchmarks.reference.dense_walk import dense_walk
from benchmarks.structure import largest
from methods.parts.ops.random_walk import random_walk

SPREAD = 2e-3
"""Largest share of a map's maximum that the two may differ by: float32 rounds differently in eight squarings and in 256
steps."""


def inputs_of(hw: tuple[int, int], maps: int) -> tuple[Tensor, Tensor]:
    """Smooth maps (K,H,W) in [0,1] and a boundary map of thin lines (H,W), as a trained edge head gives."""
    rng = torch.Generator().manual_seed(0)
    blobs = F.interpolate(torch.randn(1, maps, 4, 5, generator=rng), hw, mode="bicubic")[0].sigmoid()
    field = F.interpolate(torch.randn(1, 1, 8, 10, generator=rng), hw, mode="bicubic")[0, 0]
    return blobs, 0.95 * torch.exp(-((field / 0.15) ** 2))


def cases(quick: bool) -> list[Case]:
    """Three maps of an image of 188x252 pixels and of VOC's 375x500; the dense one takes minutes a round there."""

    def case(hw: tuple[int, int], goal: float | None) -> Case:
        @functools.cache
        def inputs() -> tuple[Tensor, Tensor]:
            return inputs_of(hw, 3)

        @torch.no_grad()
        def ours() -> Tensor:
            return random_walk(*inputs())

        def agree(one: Tensor, other: Tensor) -> str:
            apart = float((one - other).abs().amax() / one.amax())
            same = float((one.argmax(0) == other.argmax(0)).float().mean())
            assert apart < SPREAD, f"{apart:.1e} of the maximum apart"
            assert same > 0.999, f"the best map is another one in {1 - same:.2%} of the cells"
            return f"to {apart:.0e} of the maximum, best map equal in {same:.2%}"

        def equal() -> str:
            small = inputs_of((12, 15), 3)
            shape = largest(lambda: dense_walk(*small))
            assert shape == (180, 180), shape
            precise = [x.double() for x in small]
            assert agree(dense_walk(*small), random_walk(*precise).float())
            return f"the reference squares {hw[0] * hw[1]}x{hw[0] * hw[1]}"

        return Case(
            f"walk {hw[0]}x{hw[1]}",
            lambda: dense_walk(*inputs()),
            ours,
            equal,
            goal,
            agree=agree,
            prepare=inputs,
            unit="3 maps, radius 5, 256 steps",
            images=1,
        )

    return [case((24, 32), None)] if quick else [case((47, 63), 35.0), case((94, 125), 300.0)]
