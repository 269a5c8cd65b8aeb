"""A random walk that spreads score maps inside regions and stops at class boundaries, and the masks made of it
(irn.md 2.6). Axes: K maps, n labels that occur, H W cells of the boundary map or pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.pixel_pairs import affinity, paths, reach
from methods.parts.tensors import full_precision

VERSION = 1
STRIDE = 4
"""Pixels per cell of the boundary map."""
# Cells that walk together: few enough for a CPU's cache, and steps on so few are as slow as the calls that make them.
_CELLS = {"cpu": 1 << 14}
_CELLS_ELSEWHERE = 1 << 20


def random_walk(
    maps_KHW: Tensor, edge_HW: Tensor, *, radius: float = 5, beta: float = 10, exp_times: int = 8, damp: bool = True
) -> Tensor:
    """Maps (K,H,W) after 2^`exp_times` steps among cells nearer than `radius`, of boundary probabilities (H,W).

    A step moves a cell's score to its neighbours and itself in proportion to affinity^`beta`, so that what a cell
    receives is a weighted mean. `damp`: start from maps x (1 - edge). Leading axes of both are kept: (B,K,H,W) with
    (B,H,W). Float64 stays, all else is float32.
    """
    dtype = torch.float64 if maps_KHW.dtype == torch.float64 else torch.float32
    edge, maps = edge_HW.to(dtype), maps_KHW.to(dtype)
    height, width = edge.shape[-2:]
    with full_precision(edge):
        shifts, weights, share = _graph(edge.reshape(-1, height, width), radius, beta)
        y = maps * (1 - edge).unsqueeze(-3) if damp else maps
        y = y.reshape(len(share), maps.shape[-3], height * width)
        for _ in range(2**exp_times):
            y = _step(y, shifts, weights, share)
    return y.view_as(maps)


def random_walks(maps: Sequence[Tensor], edges: Sequence[Tensor], **how: Any) -> list[Tensor]:
    """`random_walk`, with its words, of the maps (K,H,W) and boundaries (H,W) of several images, whose K and sizes may
    differ. Those of one size walk together: equal values, in a fraction of the calls."""
    found: dict[int, Tensor] = {}
    by_size: dict[torch.Size, list[int]] = {}
    for i, edge_HW in enumerate(edges):
        by_size.setdefault(edge_HW.shape, []).append(i)
    for (height, width), places in by_size.items():
        step = max(1, _CELLS.get(edges[places[0]].device.type, _CELLS_ELSEWHERE) // max(1, height * width))
        for at in range(0, len(places), step):
            some = places[at : at + step]
            most = max(len(maps[i]) for i in some)
            # Maps that an image lacks are 0, and stay so.
            padded = [F.pad(maps[i], (0, 0, 0, 0, 0, most - len(maps[i]))) for i in some]
            walked_BKHW = random_walk(torch.stack(padded), torch.stack([edges[i] for i in some]), **how)
            found |= {i: one[: len(maps[i])] for i, one in zip(some, walked_BKHW, strict=True)}
    return [found[i] for i in range(len(maps))]


def _graph(edge_BHW: Tensor, radius: float, beta: float) -> tuple[list[int], list[Tensor], Tensor]:
    """Flat steps to the partners, weights (B,1,cells that have one) of each step both ways, and 1 / sum of the weights
    of each cell (B,1,N), its own included."""
    far = reach(radius)
    height, width = edge_BHW.shape[1:]
    # Outside the image stands a boundary: pairs that would leave it have affinity 0.
    near_BRN = affinity(F.pad(edge_BHW, (far, far, 0, far), value=1.0), radius).clamp(min=0) ** beta
    shifts, weights = [], []
    total = torch.ones_like(near_BRN[:, :1])
    for i, path in enumerate(paths(radius)):
        dy, dx = path.offset
        if dy >= height or abs(dx) >= width:
            continue
        shift = dy * width + dx
        weight = near_BRN[:, i : i + 1, : height * width - shift]
        total = total + F.pad(weight, (0, shift)) + F.pad(weight, (shift, 0))
        shifts.append(shift)
        weights.append(weight)
    return shifts, weights, 1 / total


def _step(y_BKN: Tensor, shifts: list[int], weights: list[Tensor], share_B1N: Tensor) -> Tensor:
    # Cells in rows one behind the other: a pair is two slices, and pairs across the image's border weigh 0.
    moved = y_BKN.clone()
    for shift, weight in zip(shifts, weights, strict=True):
        moved[..., :-shift].addcmul_(weight, y_BKN[..., shift:])
        moved[..., shift:].addcmul_(weight, y_BKN[..., :-shift])
    return moved.mul_(share_B1N)


@torch.no_grad()
def walked_scores(walked_nhw: Tensor, size: tuple[int, int], *, stride: int = STRIDE, per_map: bool = False) -> Tensor:
    """Walked maps `stride` times finer (bilinear), cut to (H,W), divided by their one maximum, or each by its own with
    `per_map`: (n,H,W) in [0,1], 0 where all is 0 (irn.md 2.6)."""
    if not len(walked_nhw):
        return walked_nhw.new_zeros((0, *size), dtype=torch.float32)
    fine = F.interpolate(walked_nhw[None].float(), scale_factor=stride, mode="bilinear", align_corners=False)[0]
    fine = fine[:, : size[0], : size[1]]
    largest = fine.amax((1, 2), keepdim=True) if per_map else fine.max()
    return fine / largest.clamp(min=torch.finfo(fine.dtype).tiny)


@torch.no_grad()
def walked_masks(
    walked_nhw: Tensor,
    labels_n: Tensor,
    size: tuple[int, int],
    *,
    background: float | None = 0.25,
    stride: int = STRIDE,
    per_map: bool = False,
) -> Tensor:
    """Label values int64 (H,W) of walked maps: of `walked_scores` the largest wins.

    `labels_n` are the label values of the maps. `background` is the score of label 0, which wins ties; None says
    that label 0 is among the maps. Without a map, or where all of them are 0, the mask is 0 (irn.md 2.6, sipe.md 2.5).
    """
    return decided_labels(
        walked_scores(walked_nhw, size, stride=stride, per_map=per_map), labels_n, background=background
    )


def decided_labels(scores_nHW: Tensor, labels_n: Tensor, *, background: float | None) -> Tensor:
    """Label values int64 (H,W) of scores: the largest wins, ties go to the first. `background` is the score of label 0,
    which wins ties; None says that label 0 is among the scores. Without a map the labels are 0."""
    if not len(scores_nHW):
        return torch.zeros(scores_nHW.shape[1:], dtype=torch.int64, device=scores_nHW.device)
    score_HW, best_HW = scores_nHW.max(dim=0)
    found = labels_n.to(scores_nHW.device, torch.int64)[best_HW]
    return found if background is None else found.masked_fill(score_HW <= background, 0)
