"""Base seeds whose unlikely activations are depressed by the likelihood of a second flow (brnf.md 2.5).

Axes: B images, K labels (background at 0), N pixels, h w the grid of features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.api.vocabulary import IGNORE


@torch.no_grad()
def likelihood_gate(
    score_N: Tensor, label_N: Tensor, mean_K: Tensor, std_K: Tensor, kappa: float = 1.0, softness: float = 0.25
) -> Tensor:
    """Share of a pixel's activation that stays: (N,) in (0,1) (brnf.md 2.5).

    sigmoid((score - threshold) / (softness std)) with threshold = mean - kappa std of the label's class; scores in nats
    per dimension. `softness` 0 gates hard: 1 from the threshold on. Pixels labelled 255 keep all: 1.
    """
    known_N = label_N != IGNORE
    index_N = torch.where(known_N, label_N, 0)
    std_N = std_K.to(score_N.dtype)[index_N]
    above_N = score_N - (mean_K.to(score_N.dtype)[index_N] - kappa * std_N)
    if softness == 0:
        gate_N = (above_N >= 0).to(score_N.dtype)
    else:
        # A class of equal scores has no deviation; its threshold is its mean.
        gate_N = (above_N / (softness * std_N).clamp(min=torch.finfo(score_N.dtype).tiny)).sigmoid()
    return torch.where(known_N, gate_N, 1.0)


@torch.no_grad()
def gated_seed(seed_BKhw: Tensor, gate_Bhw: Tensor, label_Bhw: Tensor) -> Tensor:
    """Seeds (B,K,h,w) in [0,1] whose labelled class is multiplied by the gate, with the background that this leaves:
    1 - the largest class (brnf.md 2.5).

    Other classes stay, and so do pixels labelled 0 or 255. Of the seed's own background nothing is read.
    """
    classes_K = torch.arange(1, seed_BKhw.shape[1], device=seed_BKhw.device)
    labelled_BChw = label_Bhw[:, None] == classes_K[:, None, None]
    classes_BChw = seed_BKhw[:, 1:] * torch.where(labelled_BChw, gate_Bhw[:, None].to(seed_BKhw.dtype), 1.0)
    return torch.cat([1.0 - classes_BChw.amax(dim=1, keepdim=True), classes_BChw], dim=1)
