"""Which tokens of a view FSR masks: fsr.md 2.3, its paper's reading of it, and the selections of Table 3.

Axes: B images, C classes, H W pixels, h w tokens a side, N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.api import fitting
from harness.api.method import Progress
from harness.api.precision import no_gradient
from methods.fsr.config import FsrConfig
from methods.fsr.model import FsrNet, Tokens
from methods.parts.nets.vit_segmenter import mode
from methods.parts.ops.cam import Tags, best_class, multi_scale_cam, normalise_cam
from methods.parts.ops.masking import cells_to_tokens, edge_tokens, mask_count, select_cells, uncertain_cells

STRICT = ("edge_strict", "cam_strict")
"""Selections that have no number of masked tokens of their own."""


@torch.no_grad()
def masked_tokens(
    net: FsrNet,
    config: FsrConfig,
    view_B3HW: Tensor,
    tags_BC: Tags,
    progress: Progress,
    *,
    clean: Tokens | None = None,
    pixels_B3HW: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Masked tokens bool (B,N), row-major; the random phase and the selection `random` compute no CAM.

    `clean`: the view's unmasked tokens, where they were read in this step. `pixels_B3HW` 0..255 is read by
    `edge_strict` only; raises ValueError where that is not given. `noise` is `mask_noise`, where it was drawn already.
    """
    grid = (view_B3HW.shape[-2] // net.encoder.stride, view_B3HW.shape[-1] // net.encoder.stride)
    if config.selection == "edge_strict":
        if pixels_B3HW is None:
            raise ValueError("edge_strict needs pixels")
        return edge_tokens(pixels_B3HW, grid)
    if config.selection == "cam_strict":
        v = mask_score(net, config, view_B3HW, tags_BC, clean)
        return uncertain_cells(v, grid, config.mask_low, config.mask_high).flatten(1)
    block, cells = _cells(config, grid)
    if noise is None:
        noise = mask_noise(net, config, view_B3HW)
    assert noise is not None
    uncertain = None
    if config.selection == "uncertain" and progress.fraction >= config.random_phase:
        v = mask_score(net, config, view_B3HW, tags_BC, clean)
        uncertain = uncertain_cells(v, cells, config.mask_low, config.mask_high)
    chosen = select_cells(uncertain, noise, config.mask_ratio, floor=config.mask_floor)
    return cells_to_tokens(chosen, block, grid)


def mask_noise(net: FsrNet, config: FsrConfig, view_B3HW: Tensor) -> Tensor | None:
    """What is drawn to choose cells of a view; None for the strict selections, which draw nothing."""
    if config.selection in STRICT:
        return None
    stride = net.encoder.stride
    _, cells = _cells(config, (view_B3HW.shape[-2] // stride, view_B3HW.shape[-1] // stride))
    return torch.rand(len(view_B3HW), *cells, device=view_B3HW.device)


def _cells(config: FsrConfig, grid: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Side of a cell in tokens, and the cells of a token grid, those at the far edges cut."""
    block = fitting.tokens(config.mask_block, grid[0])
    return block, (-(-grid[0] // block), -(-grid[1] // block))


def most_masked(config: FsrConfig, grid: tuple[int, int]) -> int | None:
    """Most tokens that can be masked in an image; None for the strict selections, which have no number of their own."""
    if config.selection in STRICT:
        return None
    block, cells = _cells(config, grid)
    return min(
        grid[0] * grid[1], mask_count(cells[0] * cells[1], config.mask_ratio, floor=config.mask_floor) * block**2
    )


@torch.no_grad()
def mask_score(net: FsrNet, config: FsrConfig, view_B3HW: Tensor, tags_BC: Tags, clean: Tokens | None = None) -> Tensor:
    """The best present class's CAM in [0,1): (B,H,W), or (B,h,w) where the CAM is a single plain one."""
    maps = net.aux_cam_maps if config.mask_cam == "aux" else net.top_cam_maps
    first_BChw = None
    if clean is not None and config.reuse_cam:
        aux_BChw, top_BChw = net.both_maps_of(clean).chunk(2, dim=1)
        first_BChw = aux_BChw if config.mask_cam == "aux" else top_BChw
    with mode(net, training=not config.reuse_cam):
        if config.mask_single_scale:
            with no_gradient(view_B3HW.device):
                raw_BChw = maps(view_B3HW) if first_BChw is None else first_BChw
            cam = normalise_cam(raw_BChw.relu())
        else:
            if 1.0 not in config.cam_scales:
                first_BChw = None
            cam = multi_scale_cam(
                maps, view_B3HW, config.cam_scales, relu_first=True, first_BChw=first_BChw, tags_BC=tags_BC
            )
    return best_class(cam, tags_BC)[0]
