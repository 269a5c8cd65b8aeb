"""A5: pseudo labels from CAMs that PAR has refined, and the refined scores themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.datasets.labels import IGNORE
from methods.parts.cam import gather_classes, present_classes, resize, scatter_classes
from methods.parts.par import DILATIONS, GROWTH, par

VERSION = 1

# Exact ties belong to background; the round-off of a derived background share (below 1e-6) must not turn them.
_TIE = 2e-6


def _classes(cam_BCHW: Tensor, tags_BC: Tensor | None) -> tuple[Tensor, Tensor]:
    return present_classes(cam_BCHW.new_ones(cam_BCHW.shape[:2]) if tags_BC is None else tags_BC)


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return max(1, size[0] // 2), max(1, size[1] // 2)


@torch.no_grad()
def pseudo_labels(
    pixels_B3HW: Tensor,
    cam_BCHW: Tensor,
    tags_BC: Tensor | None,
    *,
    high: float,
    low: float,
    content_BHW: Tensor | None = None,
    dilations: Sequence[int] = DILATIONS,
    iterations: int = 10,
) -> Tensor:
    """Label values int64 (B,H,W) from CAMs refined by PAR under two background scores (A5, A15a).

    `pixels_B3HW` 0..255 and `cam_BCHW` in [0,1] share (H,W). 1..C where a class wins against `high`; 0 where
    background wins even at `low`; 255 between, and where `content_BHW` is false. `tags_BC` None: all present.
    Raises ValueError for low > high or for sizes that differ.
    """
    if low > high:
        raise ValueError(f"low {low} lies above high {high}")
    if pixels_B3HW.shape[-2:] != cam_BCHW.shape[-2:]:
        raise ValueError(f"pixels {tuple(pixels_B3HW.shape)} and CAM {tuple(cam_BCHW.shape)} differ in size")
    size = (int(cam_BCHW.shape[-2]), int(cam_BCHW.shape[-1]))
    index_Bk, real_Bk = _classes(cam_BCHW, tags_BC)
    k = index_Bk.shape[1]
    label_BHW = torch.zeros((len(cam_BCHW), *size), dtype=torch.int64, device=cam_BCHW.device)
    if k:
        half = _half(size)
        cam_Bkhw = resize(gather_classes(cam_BCHW, index_Bk).float(), half)
        cam_Bkhw = cam_Bkhw.masked_fill(~real_Bk[:, :, None, None], -torch.inf)
        shares = []
        for score in (high, low):
            background = torch.full_like(cam_Bkhw[:, :1], score)
            # The shares sum to 1 and PAR is linear, so background needs no channel of its own.
            shares.append(torch.cat([background, cam_Bkhw], dim=1).softmax(dim=1)[:, 1:])
        refined = resize(
            par(resize(pixels_B3HW.float() / 255.0, half), torch.cat(shares, 1), iterations, dilations), size
        )
        padding = ~real_Bk[:, :, None, None]
        labels = []
        for share_BkHW in refined.split(k, dim=1):
            background_BHW = GROWTH**iterations + _TIE - share_BkHW.sum(dim=1)
            best_BHW, slot_BHW = share_BkHW.masked_fill(padding, -1.0).max(dim=1)
            ids_BHW = (index_Bk + 1).gather(1, slot_BHW.flatten(1)).view_as(slot_BHW)
            labels.append(torch.where(best_BHW > background_BHW, ids_BHW, 0))
        high_BHW, low_BHW = labels
        label_BHW = high_BHW.masked_fill((high_BHW == 0) & (low_BHW > 0), IGNORE)
    if content_BHW is not None:
        label_BHW = label_BHW.masked_fill(~content_BHW.bool(), IGNORE)
    return label_BHW


@torch.no_grad()
def refined_scores(
    pixels_B3HW: Tensor,
    cam_BCHW: Tensor,
    tags_BC: Tensor | None,
    iterations: int = 10,
    dilations: Sequence[int] = DILATIONS,
) -> Tensor:
    """CAM after PAR at half size, growth divided out: float32 (B,C,H,W) in [0,1], absent classes 0.

    `pixels_B3HW` 0..255 and `cam_BCHW` in [0,1] share (H,W); A4 makes labels of it. `tags_BC` None: all.
    """
    size = (int(cam_BCHW.shape[-2]), int(cam_BCHW.shape[-1]))
    index_Bk, real_Bk = _classes(cam_BCHW, tags_BC)
    if not index_Bk.shape[1]:
        return torch.zeros_like(cam_BCHW, dtype=torch.float32)
    half = _half(size)
    cam_Bkhw = resize(gather_classes(cam_BCHW, index_Bk).float(), half) * real_Bk[:, :, None, None]
    refined = par(resize(pixels_B3HW.float() / 255.0, half), cam_Bkhw, iterations, dilations)
    refined = resize(refined.div_(GROWTH**iterations), size).clamp_(0.0, 1.0)
    return scatter_classes(refined, index_Bk, int(cam_BCHW.shape[1]))
