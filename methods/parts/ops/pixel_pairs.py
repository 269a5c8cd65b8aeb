"""Pairs of nearby cells and their affinity along straight paths, which supervise a class-boundary map without boundary
labels (irn.md 2.5).

Axes: B images, H W cells of a grid, R offsets from the first cell of a pair to the second, P first cells.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.api.vocabulary import IGNORE
from methods.parts.tensors import full_precision

VERSION = 1
EPS = 1e-5
"""Added to affinities before the logarithm and to counts of pairs before a division, as published."""


@dataclass(frozen=True)
class Path:
    """The thick line from a cell to the one at `offset`: rows of adjacent cells, relative to the first cell."""

    offset: tuple[int, int]
    """Rows down and columns right."""
    runs: tuple[tuple[int, int, int], ...]
    """(row, first column, number of cells) of each row, from the first row down."""

    @property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """(row, column) of every cell, both ends included."""
        return tuple((row, first + i) for row, first, count in self.runs for i in range(count))


def reach(radius: float) -> int:
    """Rows and columns that a pair spans at most: the largest whole number strictly below `radius`."""
    return math.ceil(radius) - 1


@functools.lru_cache(maxsize=32)
def paths(radius: float) -> tuple[Path, ...]:
    """Paths to all cells of half a disc, nearer than `radius` cells, those of fewer cells first (irn.md 2.5).

    A cell is on a path where its distance to the line is below 1. Raises ValueError for a radius of 1 or less.
    """
    far = reach(radius)
    if far < 1:
        raise ValueError(f"radius {radius:g}: no two cells are nearer than that, give more than 1")
    half_disc = [(0, x) for x in range(1, far + 1)]
    half_disc += [(y, x) for y in range(1, far + 1) for x in range(-far, far + 1) if y * y + x * x < radius * radius]
    found = [Path((dy, dx), tuple(_runs(dy, dx))) for dy, dx in half_disc]
    return tuple(sorted(found, key=lambda path: len(path.cells)))


def _runs(dy: int, dx: int) -> list[tuple[int, int, int]]:
    runs = []
    for y in range(dy + 1):
        row = [x for x in range(min(dx, 0), max(dx, 0) + 1) if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]
        runs.append((y, row[0], len(row)))
    return runs


def _span(radius: float, hw: tuple[int, int]) -> tuple[int, int, int]:
    """Rows, columns and first column of the cells that pairs start from; rows or columns may be 0."""
    far = reach(radius)
    return max(0, hw[0] - far), max(0, hw[1] - 2 * far), far


def pairs(radius: float, hw: tuple[int, int], *, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Flat indices of the first cells (P), of their partners (R,P), and the offsets (R,2) in rows and columns, int64.

    Every first cell has all its partners inside the h x w grid: the last rows and the columns at both sides are
    partners only. P is 0 on a grid of fewer rows than `radius`, or of fewer columns than about twice that.
    """
    rows, columns, first = _span(radius, hw)
    y = torch.arange(rows, device=device)[:, None] * hw[1]
    source_P = (y + torch.arange(first, first + columns, device=device)).flatten()
    offset_R2 = torch.tensor([path.offset for path in paths(radius)], device=device)
    step_R = offset_R2[:, 0] * hw[1] + offset_R2[:, 1]
    return source_P, source_P + step_R[:, None], offset_R2


def affinity(edge_BHW: Tensor, radius: float) -> Tensor:
    """1 minus the largest boundary probability on the path of each pair: (B,R,P), of (B,H,W) in [0,1] (irn.md 2.5).

    The gradient of a pair goes to the cell of that largest value, the first one where several are equal.
    """
    # Values alone decide which cell counts: the gradient needs one gather instead of every path's cells.
    index_BRP = _strongest(edge_BHW.detach(), radius)
    chosen = edge_BHW.flatten(1).gather(1, index_BRP.flatten(1))
    return 1 - chosen.view_as(index_BRP)


@torch.no_grad()
def _strongest(edge_BHW: Tensor, radius: float) -> Tensor:
    """Flat index (B,R,P) of the cell with the largest value on each path."""
    height, width = edge_BHW.shape[1:]
    rows, columns, first = _span(radius, (height, width))
    all_paths = paths(radius)
    index_BHW = torch.arange(height * width, device=edge_BHW.device).view(1, height, width).expand_as(edge_BHW)
    windows = [(edge_BHW, index_BHW)]
    for count in range(1, max(run[2] for path in all_paths for run in path.runs)):
        # The window of count + 1 cells: that of count cells, or the cell behind it.
        value, index = windows[-1]
        windows.append(_larger(value[..., :-1], index[..., :-1], edge_BHW[..., count:], index_BHW[..., count:]))
    found = []
    for path in all_paths:
        best: tuple[Tensor, Tensor] | None = None
        for row, column, count in path.runs:
            here = (..., slice(row, row + rows), slice(first + column, first + column + columns))
            value, index = (part[here] for part in windows[count - 1])
            best = (value, index) if best is None else _larger(*best, value, index)
        assert best is not None
        found.append(best[1].flatten(1))
    return torch.stack(found, dim=1)


def _larger(value: Tensor, index: Tensor, other: Tensor, other_index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.maximum(value, other), torch.where(other > value, other_index, index)


@torch.no_grad()
def pair_labels(label_HW: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs are both background, both of one class, or different: bool (R,P) each (irn.md 2.5).

    Pairs with a 255 are none of these. Leading axes of `label_HW` are kept: (B,H,W) gives (B,R,P).
    """
    hw = (int(label_HW.shape[-2]), int(label_HW.shape[-1]))
    source_P, target_RP, _ = pairs(radius, hw, device=label_HW.device)
    flat = label_HW.flatten(-2)
    here, there = flat[..., None, source_P], flat[..., target_RP]
    valid = (here != IGNORE) & (there != IGNORE)
    same = (here == there) & valid
    background = here == 0
    return same & background, same & ~background, valid & (here != there)


def _mean(mask: Tensor, values_BRP: Tensor) -> Tensor:
    """Mean over the pairs of a mask, 0 where it has none."""
    mask_BRP = mask.expand_as(values_BRP)
    return (values_BRP * mask_BRP).sum() / (mask_BRP.sum() + EPS)


def affinity_loss(affinity_BRP: Tensor, bg: Tensor, fg: Tensor, neg: Tensor) -> Tensor:
    """Half the cross-entropy of like pairs plus half that of unlike ones: scalar, nats (irn.md 2.5 L_edge).

    Background and foreground pairs count alike, whatever their number; means run over the group, and a kind without
    pairs counts 0. Masks are (R,P) or (B,R,P).
    """
    with full_precision(affinity_BRP):
        affinity_BRP = affinity_BRP if affinity_BRP.dtype == torch.float64 else affinity_BRP.float()
        like = -(affinity_BRP + EPS).log()
        unlike = -(1 + EPS - affinity_BRP).log()
        positive = (_mean(bg, like) + _mean(fg, like)) / 2
        return (positive + _mean(neg, unlike)) / 2


def displacement_loss(displacement_B2HW: Tensor, bg: Tensor, fg: Tensor, radius: float) -> Tensor:
    """How far differences of displacements are from the pairs' offsets (one class) and from 0 (background): scalar,
    cells (irn.md 2.5 L_dp).

    `displacement_B2HW` points, in rows and columns, to the centroid of a cell's instance. Masks as `affinity_loss`.
    """
    hw = (int(displacement_B2HW.shape[-2]), int(displacement_B2HW.shape[-1]))
    source_P, target_RP, offset_R2 = pairs(radius, hw, device=displacement_B2HW.device)
    with full_precision(displacement_B2HW):
        flat_B2N = displacement_B2HW.flatten(2)
        flat_B2N = flat_B2N if flat_B2N.dtype == torch.float64 else flat_B2N.float()
        difference_B2RP = flat_B2N[:, :, None, source_P] - flat_B2N[:, :, target_RP]
        off_BRP = (difference_B2RP - offset_R2.T[:, :, None]).abs().sum(dim=1)
        fg_BRP, bg_BRP = fg.expand_as(off_BRP), bg.expand_as(off_BRP)
        foreground = (off_BRP * fg_BRP).sum() / (2 * fg_BRP.sum() + EPS)
        background = (difference_B2RP.abs().sum(dim=1) * bg_BRP).sum() / (2 * bg_BRP.sum() + EPS)
        return (foreground + background) / 2
