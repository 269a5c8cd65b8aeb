"""A5: pseudo labels from CAMs that PAR has refined, and the refined scores themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.api.vocabulary import IGNORE
from methods.parts.ops.cam import PresentClasses, Tags, gather_classes, present_classes, resize, scatter_classes
from methods.parts.ops.par import DILATIONS, GROWTH, par

VERSION = 1

TIE = 2e-6
"""Exact ties belong to background; the round-off of its derived share (below 1e-6) must not turn them."""


def _classes(cam_BCHW: Tensor, tags_BC: Tags | None) -> PresentClasses:
    if tags_BC is not None:
        return present_classes(tags_BC)
    return present_classes(cam_BCHW.new_ones(cam_BCHW.shape[:2]), most=int(cam_BCHW.shape[1]))


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size at which PAR runs."""
    return max(1, size[0] // 2), max(1, size[1] // 2)


def class_shares(cam_Bkhw: Tensor, real_Bk: Tensor, scores: Sequence[float]) -> Tensor:
    """Classes' part of softmax [background score, CAMs] for every background score in turn: (B,len(scores) k,h,w).

    Unreal slots get 0. All shares of a pixel sum to 1, background's included, which therefore needs no channel.
    """
    cam_Bkhw = cam_Bkhw.masked_fill(~real_Bk[:, :, None, None], -torch.inf)
    backgrounds = [torch.full_like(cam_Bkhw[:, :1], score) for score in scores]
    return torch.cat([torch.cat([b, cam_Bkhw], dim=1).softmax(dim=1)[:, 1:] for b in backgrounds], dim=1)


def two_score_labels(shares: Tensor, total: float | Tensor, index_Bk: Tensor, real_Bk: Tensor) -> Tensor:
    """Label values (B,H,W): classes that win against the high background score, 0 where background wins at the low one,
    else 255.

    `shares` (B,2k,H,W) of the high score, then of the low one; what they lack to `total` is background's. For ties to
    be background's, `total` is given by `TIE` too large.
    """
    labels = []
    for share_BkHW in shares.chunk(2, dim=1):
        background_BHW = total - share_BkHW.sum(dim=1)
        best_BHW, slot_BHW = share_BkHW.masked_fill(~real_Bk[:, :, None, None], -1.0).max(dim=1)
        ids_BHW = (index_Bk + 1).gather(1, slot_BHW.flatten(1)).view_as(slot_BHW)
        labels.append(torch.where(best_BHW > background_BHW, ids_BHW, 0))
    high_BHW, low_BHW = labels
    return high_BHW.masked_fill((high_BHW == 0) & (low_BHW > 0), IGNORE)


@torch.no_grad()
def pseudo_labels(
    pixels_B3HW: Tensor,
    cam_BCHW: Tensor,
    tags_BC: Tags | None,
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
    index_Bk, real_Bk, _ = _classes(cam_BCHW, tags_BC)
    label_BHW = torch.zeros((len(cam_BCHW), *size), dtype=torch.int64, device=cam_BCHW.device)
    if index_Bk.shape[1]:
        half = half_size(size)
        shares = class_shares(resize(gather_classes(cam_BCHW, index_Bk).float(), half), real_Bk, (high, low))
        refined = resize(par(resize(pixels_B3HW.float() / 255.0, half), shares, iterations, dilations), size)
        label_BHW = two_score_labels(refined, GROWTH**iterations + TIE, index_Bk, real_Bk)
    if content_BHW is not None:
        label_BHW = label_BHW.masked_fill(~content_BHW.bool(), IGNORE)
    return label_BHW


@torch.no_grad()
def refined_scores(
    pixels_B3HW: Tensor,
    cam_BCHW: Tensor,
    tags_BC: Tags | None,
    iterations: int = 10,
    dilations: Sequence[int] = DILATIONS,
) -> Tensor:
    """CAM after PAR at half size, growth divided out: float32 (B,C,H,W) in [0,1], absent classes 0.

    `pixels_B3HW` 0..255 and `cam_BCHW` in [0,1] share (H,W); A4 makes labels of it. `tags_BC` None: all.
    """
    size = (int(cam_BCHW.shape[-2]), int(cam_BCHW.shape[-1]))
    index_Bk, real_Bk, _ = _classes(cam_BCHW, tags_BC)
    if not index_Bk.shape[1]:
        return torch.zeros_like(cam_BCHW, dtype=torch.float32)
    half = half_size(size)
    cam_Bkhw = resize(gather_classes(cam_BCHW, index_Bk).float(), half) * real_Bk[:, :, None, None]
    refined = par(resize(pixels_B3HW.float() / 255.0, half), cam_Bkhw, iterations, dilations)
    refined = resize(refined.div_(GROWTH**iterations), size).clamp_(0.0, 1.0)
    return scatter_classes(refined, index_Bk, int(cam_BCHW.shape[1]))
