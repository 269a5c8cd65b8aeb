"""UniA's label maps: PAR and affinity refined ones from the same CAM, and their mutual complementing refinement.

Axes: B images, C foreground classes, k present classes, H W pixels, h w = N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.api.vocabulary import IGNORE
from methods.parts.ops.affinity import spread
from methods.parts.ops.cam import Tags, gather_classes, present_classes, resize
from methods.parts.ops.par import DILATIONS, GROWTH, par
from methods.parts.ops.pseudo import TIE, class_shares, half_size, two_score_labels

VERSION = 1


@torch.no_grad()
def par_and_affinity_labels(
    pixels_B3HW: Tensor,
    cam_BCHW: Tensor,
    tags_BC: Tags,
    affinity_BNN: Tensor,
    hw: tuple[int, int],
    *,
    high: float,
    low: float,
    content_BHW: Tensor | None = None,
    dilations: Sequence[int] = DILATIONS,
    iterations: int = 10,
) -> tuple[Tensor, Tensor]:
    """Label values R and A_lab, int64 (B,H,W) each, from CAMs in [0,1] and pixels 0..255 (unia.md 2.5).

    R is A5. For A_lab the class shares are spread along the affinity at token size before the same refinement.
    PAR is linear and acts per channel: one pass serves both maps and both background scores. 255 outside the
    content. Raises ValueError for low > high.
    """
    if low > high:
        raise ValueError(f"low {low} lies above high {high}")
    size = (int(cam_BCHW.shape[-2]), int(cam_BCHW.shape[-1]))
    index_Bk, real_Bk, _ = present_classes(tags_BC)
    if not index_Bk.shape[1]:
        label_BHW = torch.zeros((len(cam_BCHW), *size), dtype=torch.int64, device=cam_BCHW.device)
        return (_outside(label_BHW, content_BHW),) * 2
    half = half_size(size)
    cam_BkHW = gather_classes(cam_BCHW, index_Bk).float()
    par_shares = class_shares(resize(cam_BkHW, half), real_Bk, (high, low))
    token_shares = class_shares(resize(cam_BkHW, hw), real_Bk, (high, low))
    # Shares of all labels sum to 1: background needs no channel, and along the affinity one for all scores.
    spread_shares = spread(torch.cat([token_shares, torch.ones_like(token_shares[:, :1])], dim=1), affinity_BNN)
    stack = torch.cat([par_shares, resize(spread_shares, half)], dim=1)
    refined = resize(par(resize(pixels_B3HW.float() / 255.0, half), stack, iterations, dilations), size)
    par_scores, affinity_scores, total = refined.split([par_shares.shape[1], token_shares.shape[1], 1], dim=1)
    par_BHW = two_score_labels(par_scores, GROWTH**iterations + TIE, index_Bk, real_Bk)
    affinity_BHW = two_score_labels(affinity_scores, total[:, 0] * (1.0 + TIE), index_Bk, real_Bk)
    return _outside(par_BHW, content_BHW), _outside(affinity_BHW, content_BHW)


def _outside(label_BHW: Tensor, content_BHW: Tensor | None) -> Tensor:
    return label_BHW if content_BHW is None else label_BHW.masked_fill(~content_BHW.bool(), IGNORE)


def confident(label: Tensor) -> Tensor:
    """Bool: label values that name a class, neither background nor 255."""
    return (label != 0) & (label != IGNORE)


@torch.no_grad()
def mutual_refinement(
    cam_label: Tensor, par_label: Tensor, affinity_label: Tensor, *, prior: bool, trust_cam: bool = False
) -> Tensor:
    """Mutual complementing refinement: label values of the input's shape (unia.md 2.5 MCR).

    The affinity label, filled up by the PAR label where it names no class. `prior`: CAM and PAR agreeing on a class
    override. `trust_cam` (ACDC): where PAR ignores and the CAM names a class, the CAM overrides.
    """
    fill = ~confident(affinity_label) & confident(par_label)
    label = torch.where(fill, par_label, affinity_label)
    if prior:
        label = torch.where(confident(cam_label) & (cam_label == par_label), cam_label, label)
    if trust_cam:
        label = torch.where((par_label == IGNORE) & confident(cam_label), cam_label, label)
    return label
