"""Which pixels a density learns from in a step: a fixed number of places, so that no host waits for a count
(brnf.md 2.3).

Axes: N pixels, S places, K kinds.
"""

from __future__ import annotations

import torch
from torch import Tensor

DROPPED = -1
"""Kind of a pixel that is not wanted."""


@torch.no_grad()
def balanced_pixels(kind_N: Tensor, kinds: int, *, per_kind: int, most: int) -> tuple[Tensor, Tensor]:
    """Indices int64 (S,) of S = min(N, most, kinds per_kind) pixels, and which of them are kept (S,) bool: at random,
    at most `per_kind` of each kind in [0,kinds), none of kind -1.

    Kept ones come first. Where more than S would be kept, kinds share the places as they occur.
    """
    count = len(kind_N)
    order_N = torch.randperm(count, device=kind_N.device)
    kind_N = kind_N[order_N]
    one_hot_NK = kind_N[:, None] == torch.arange(kinds, device=kind_N.device)
    rank_N = (one_hot_NK.cumsum(dim=0) * one_hot_NK).sum(dim=1)
    kept_N = (rank_N > 0) & (rank_N <= per_kind)
    first_S = kept_N.to(torch.uint8).argsort(descending=True, stable=True)[: min(count, most, kinds * per_kind)]
    return order_N[first_S], kept_N[first_S]


def one_hot(label_N: Tensor, classes: int) -> Tensor:
    """float32 (N,K): 1 at the label's class; labels outside of it have none."""
    return (label_N[:, None] == torch.arange(classes, device=label_N.device)).float()
