"""UniA's uncertainty inference (unia.md 2.2). B images, N = h x w tokens, D token channels, E inner channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.nets.projector import Projector

INNER_HEAD, OUTER_HEAD = 64, 48
"""Channels of a head of the card's attentions: 1024/16 inside, 768/16 outside."""


class Inferred(NamedTuple):
    """Tokens after the module, and the Gaussian that it holds them for."""

    tokens_BND: Tensor
    """F = 2 X~."""
    log_var_BND: Tensor
    """s in [-1,1]; its sigmoid is the uncertainty."""
    mean_BND: Tensor | None
    """mu in [-1,1]; None where it was not asked for."""


class UncertaintyInference(nn.Module):
    """Infers a Gaussian per token and channel, and queries the tokens back with its uncertain ones turned down.

    `pool` is the side of the pooled cells of the global branch, in tokens. `separate_mean_head` gives the mean a
    head of its own; the published code projects mean and variance by the same one (unia.md 2.8 a).
    """

    def __init__(
        self, dim: int, *, inner: int, hidden: int, bottleneck: int, pool: int, separate_mean_head: bool = False
    ) -> None:
        super().__init__()
        self.pool = pool
        self.enter = Projector(dim, hidden, bottleneck, inner)
        self.mean_scale = nn.Conv2d(inner, inner, 1, groups=inner)
        self.log_var_scale = nn.Conv2d(inner, inner, 1, groups=inner)
        self.mean_attention = _attention(inner, INNER_HEAD)
        self.log_var_attention = _attention(inner, INNER_HEAD)
        self.leave = Projector(inner, hidden, bottleneck, dim)
        self.leave_mean = Projector(inner, hidden, bottleneck, dim) if separate_mean_head else None
        self.query_back = _attention(dim, OUTER_HEAD)

    def forward(self, tokens_BND: Tensor, hw: tuple[int, int], *, with_mean: bool = False) -> Inferred:
        """Tokens (B,N,D) of an h x w grid after the module; `with_mean` computes mu too, which only the sampled map
        reads."""
        inner_BNE = self.enter(tokens_BND)
        pooled_BnE = self._pooled(inner_BNE, hw)
        log_var_BNE = _branch(inner_BNE, pooled_BnE, self.log_var_scale, self.log_var_attention)
        mean_BND = None
        if not with_mean:
            log_var_BND = self.leave(log_var_BNE)
        else:
            mean_BNE = _branch(inner_BNE, pooled_BnE, self.mean_scale, self.mean_attention)
            if self.leave_mean is None:
                log_var_BND, mean_BND = self.leave(torch.cat([log_var_BNE, mean_BNE])).chunk(2)
            else:
                log_var_BND, mean_BND = self.leave(log_var_BNE), self.leave_mean(mean_BNE)
        certain_BND = (tokens_BND * torch.sigmoid(-log_var_BND)).to(tokens_BND.dtype)
        queried_BND = self.query_back(tokens_BND, certain_BND, certain_BND, need_weights=False)[0] + tokens_BND
        return Inferred(2.0 * queried_BND, log_var_BND, mean_BND)

    def _pooled(self, inner_BNE: Tensor, hw: tuple[int, int]) -> Tensor:
        """Cells of `pool` x `pool` tokens by their maximum, (B,n,E); the last cells are cut off where they do not fit,
        and a grid smaller than a cell is one cell."""
        cell = (min(self.pool, hw[0]), min(self.pool, hw[1]))
        if cell == (1, 1):
            return inner_BNE
        map_BEhw = inner_BNE.transpose(1, 2).unflatten(2, hw)
        return F.max_pool2d(map_BEhw, cell, cell).flatten(2).transpose(1, 2)


def _branch(inner_BNE: Tensor, pooled_BnE: Tensor, scale: nn.Conv2d, attention: nn.MultiheadAttention) -> Tensor:
    """Local plus global branch (B,N,E): per-channel scale and bias, and attention to the pooled tokens."""
    assert scale.bias is not None
    local_BNE = torch.addcmul(scale.bias, inner_BNE, scale.weight.flatten())
    return local_BNE + attention(inner_BNE, pooled_BnE, pooled_BnE, need_weights=False)[0]


def _attention(dim: int, head: int) -> nn.MultiheadAttention:
    heads = next(n for n in range(max(1, dim // head), 0, -1) if dim % n == 0)
    return nn.MultiheadAttention(dim, heads, batch_first=True)
