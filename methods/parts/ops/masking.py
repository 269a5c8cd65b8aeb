"""fsr 2.3: which cells of a view are masked."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from methods.parts.tensors import full_precision

VERSION = 1
GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R 601)."""


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


def mask_count(cells: int, ratio: float, *, floor: bool = False) -> int:
    """Number of masked cells: ceil(cells * ratio), safe against round-off of the product (fsr 2.3).

    `floor` rounds down, as the paper's text has it.
    """
    share = round(cells * ratio, 9)
    return min(cells, math.floor(share) if floor else math.ceil(share))


@torch.no_grad()
def select_cells(uncertain_Bn: Tensor | None, noise_Bn: Tensor, ratio: float, *, floor: bool = False) -> Tensor:
    """The `mask_count` cells of each image with most noise, uncertain ones first: bool, shape of the noise.

    `noise_Bn` in [0,1), (B,n) or (B,rows,columns); `uncertain_Bn` None is the strategy `random` (fsr 2.3).
    """
    # Double: adding 1 to single-precision noise would make ties.
    score = noise_Bn.flatten(1).double()
    if uncertain_Bn is not None:
        score = score + uncertain_Bn.flatten(1).to(score.dtype)
    index = score.topk(mask_count(score.shape[1], ratio, floor=floor), dim=1, sorted=False).indices
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


@torch.no_grad()
def edge_tokens(pixels_B3HW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens that a Canny edge touches: bool (B,h*w), row-major (fsr 5, Table 3 "edge strict").

    `pixels_B3HW` 0..255; `grid` the token grid (h,w). The card has no thresholds: scikit-image's defaults.
    Raises ValueError where the image is no multiple of the grid.
    """
    from skimage.feature import canny  # half a second that only this ablation spends

    height, width = pixels_B3HW.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(f"an image of {height}x{width} pixels has no whole {grid[0]}x{grid[1]} tokens")
    pixels = pixels_B3HW.float()
    with full_precision(pixels):
        luma_BHW = torch.einsum("bchw,c->bhw", pixels / 255.0, pixels.new_tensor(GREY))
    # A library call per image: Canny follows edges over the whole picture, on the CPU.
    edges_BHW = torch.from_numpy(np.stack([canny(image) for image in luma_BHW.cpu().numpy()]))
    cells_Bhw = edges_BHW.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).any(dim=4).any(dim=2)
    return cells_Bhw.flatten(1).to(pixels_B3HW.device)
