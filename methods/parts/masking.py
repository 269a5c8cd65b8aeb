"""fsr 2.3: which cells of a view are masked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

VERSION = 1


@torch.no_grad()
def uncertain_cells(v_BHW: Tensor, cells: int | tuple[int, int], low: float, high: float) -> Tensor:
    """Cells whose top-left pixel scores strictly between `low` and `high`: bool (B,rows,columns) (fsr 2.3).

    `v_BHW` is the best present class's CAM in [0,1]; `cells` the number per side, or (rows, columns).
    """
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    height, width = v_BHW.shape[-2:]
    y = torch.arange(rows, device=v_BHW.device) * height // rows
    x = torch.arange(columns, device=v_BHW.device) * width // columns
    corner = v_BHW[:, y[:, None], x[None, :]].float()
    return (corner > low) & (corner < high)


def mask_count(cells: int, ratio: float) -> int:
    """Number of masked cells: ceil(cells * ratio), safe against round-off of the product (fsr 2.3)."""
    return min(cells, math.ceil(round(cells * ratio, 9)))


@torch.no_grad()
def select_cells(uncertain_Bn: Tensor | None, noise_Bn: Tensor, ratio: float) -> Tensor:
    """The ceil(n*ratio) cells of each image with most noise, uncertain ones first: bool, shape of the noise.

    `noise_Bn` in [0,1), (B,n) or (B,rows,columns); `uncertain_Bn` None is the strategy `random` (fsr 2.3).
    """
    # Double: adding 1 to single-precision noise would make ties.
    score = noise_Bn.flatten(1).double()
    if uncertain_Bn is not None:
        score = score + uncertain_Bn.flatten(1).to(score.dtype)
    index = score.topk(mask_count(score.shape[1], ratio), dim=1, sorted=False).indices
    mask = torch.zeros(score.shape, dtype=torch.bool, device=score.device)
    return mask.scatter_(1, index, True).view(noise_Bn.shape)


@torch.no_grad()
def cells_to_tokens(mask_Bcc: Tensor, block: int, grid: tuple[int, int]) -> Tensor:
    """Tokens that lie in masked cells: bool (B,h*w), row-major (fsr 2.3).

    `block` is the side of a cell in tokens, `grid` the token grid (h,w); cells at the far edges may be cut.
    Raises ValueError where cells and grid do not fit.
    """
    for cells, tokens in zip(mask_Bcc.shape[1:], grid, strict=True):
        if not (cells - 1) * block < tokens <= cells * block:
            raise ValueError(f"{cells} cells of {block} tokens do not cover {tokens} tokens")
    wide = mask_Bcc.bool().repeat_interleave(block, dim=1).repeat_interleave(block, dim=2)
    return wide[:, : grid[0], : grid[1]].flatten(1)
