"""IRN's random walk (irn.md 2.6, 7.11) with the structure of its published code: paths gathered cell by cell, one dense
matrix of all pairs of cells, squared again and again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.pixel_pairs import paths, reach


@torch.no_grad()
def dense_walk(maps_KHW: Tensor, edge_HW: Tensor, *, radius: float = 5, beta: float = 10, exp_times: int = 8) -> Tensor:
    """Maps (K,H,W) after the walk, of boundary probabilities (H,W)."""
    height, width = edge_HW.shape
    far = reach(radius)
    padded = F.pad(edge_HW[None], (far, far, 0, far), value=1.0)[0]
    wide = width + 2 * far
    cells = height * width
    source = torch.arange(height)[:, None] * wide + torch.arange(far, far + width)
    matrix = torch.eye(cells)
    inside = torch.arange(cells).view(height, width)
    for path in paths(radius):
        index = torch.stack([source + y * wide + x for y, x in path.cells])
        near = 1 - padded.flatten()[index].amax(dim=0)
        dy, dx = path.offset
        left, right = max(0, -dx), max(0, min(width, width - dx))
        if dy >= height or left >= right:
            continue
        here = inside[: height - dy, left:right].flatten()
        there = here + dy * width + dx
        value = near[: height - dy, left:right].flatten()
        matrix[here, there] = value
        matrix[there, here] = value
    matrix = matrix**beta
    matrix = matrix / matrix.sum(dim=0, keepdim=True)
    for _ in range(exp_times):
        matrix = torch.matmul(matrix, matrix)
    return torch.matmul((maps_KHW * (1 - edge_HW)).view(len(maps_KHW), -1), matrix).view_as(maps_KHW)
