"""An affinity between tokens read from attention maps: its head, its supervision, and what spreads labels along it.

Axes: B images, M attention maps, N = h x w tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.api.vocabulary import IGNORE
from methods.parts.tensors import full_precision

VERSION = 1

NORMS = ("none", "colnorm", "sinkhorn")
"""Ways of `normalise_affinity`."""
SINKHORN_SWEEPS = 3
_EVALUATION_FLOOR = 0.1
_ROW_FLOOR = 1e-4


class AffinityHead(nn.Module):
    """Symmetric affinity in (0,1): sigmoid of a 1x1 convolution over the attention maps plus their transposes
    (unia.md 2.3)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(maps, 1, 1)

    def forward(self, attention: Sequence[Tensor]) -> Tensor:
        """Float32 (B,N,N), exactly symmetric, of attention maps (B,M_i,N,N) whose M_i sum to `maps`."""
        # The convolution is linear, so it comes before the transpose: nothing of size (M,N,N) is copied.
        weights = self.conv.weight.float().flatten().split([a.shape[1] for a in attention])
        assert self.conv.bias is not None
        with full_precision(attention[0]):
            total_BNN = sum(
                (
                    torch.matmul(weight[None, None], maps.float().flatten(2)).view(len(maps), *maps.shape[2:])
                    for weight, maps in zip(weights, attention, strict=True)
                ),
                start=self.conv.bias.float() / 2,
            )
            return (total_BNN + total_BNN.transpose(1, 2)).sigmoid()

    def freeze_bias(self) -> None:
        """Leave the bias at its start, as the published optimiser does (unia.md 2.8 d)."""
        assert self.conv.bias is not None
        self.conv.bias.requires_grad_(False)


def radius_mask(hw: tuple[int, int], radius: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Bool (N,N): tokens of an h x w grid at most `radius` rows and columns apart (unia.md 2.6, A15e)."""
    h, w = hw
    row_N = torch.arange(h, device=device).repeat_interleave(w)
    column_N = torch.arange(w, device=device).repeat(h)
    near_NN = (row_N[:, None] - row_N).abs() <= radius
    return near_NN & ((column_N[:, None] - column_N).abs() <= radius)


@torch.no_grad()
def affinity_pairs(label_BN: Tensor, near_NN: Tensor) -> Tensor:
    """Positive pairs, bool (B,N,N): equal label values, not 255, near each other (unia.md 2.6 Y).

    A token and itself, and background and background, are pairs.
    """
    same_BNN = label_BN[:, :, None] == label_BN[:, None, :]
    return same_BNN.logical_and_(near_NN).logical_and_((label_BN != IGNORE)[:, :, None])


def contrastive_affinity_loss(affinity_BNN: Tensor, pairs_BNN: Tensor, temperature: float = 0.5) -> Tensor:
    """Mean over positive pairs of -log(E_ij / sum_m E_im), E = exp(A / temperature): scalar, nats (unia.md 2.6).

    The sum runs over the whole row, so every token that is no pair pushes. The published code divides this by
    2 B besides (unia.md 2.8 e). 0 where there is no pair.
    """
    with full_precision(affinity_BNN):
        logits_BNN = affinity_BNN.float() / temperature
        row_BN = (logits_BNN.exp().sum(dim=2) + _ROW_FLOOR).log()
        count_BN = pairs_BNN.sum(dim=2)
        total = (count_BN * row_BN).sum() - (logits_BNN * pairs_BNN).sum()
        return total / (count_BN.sum() + 1)


@torch.no_grad()
def normalise_affinity(affinity_BNN: Tensor, how: str, sweeps: int = SINKHORN_SWEEPS) -> Tensor:
    """The affinity before it spreads labels: `none`, `colnorm` (columns sum to 1), or `sinkhorn` (unia.md 2.8 g).

    `sinkhorn`: `sweeps` times rows then columns are normalised, then the mean with the transpose. Entries are
    positive. Raises ValueError for another word.
    """
    if how == "none":
        return affinity_BNN
    if how == "colnorm":
        return affinity_BNN / affinity_BNN.sum(dim=1, keepdim=True)
    if how != "sinkhorn":
        raise ValueError(f"affinity is normalised by {', '.join(NORMS)}, not {how!r}")
    for _ in range(sweeps):
        affinity_BNN = affinity_BNN / affinity_BNN.sum(dim=2, keepdim=True)
        affinity_BNN = affinity_BNN / affinity_BNN.sum(dim=1, keepdim=True)
    return (affinity_BNN + affinity_BNN.transpose(1, 2)) / 2


@torch.no_grad()
def evaluation_affinity(affinity_BNN: Tensor, near_NN: Tensor) -> Tensor:
    """Affinity of the validation's affinity map: squared, far pairs 0, columns divided by (sum + .1) (unia.md 4)."""
    squared_BNN = affinity_BNN.float().square() * near_NN
    return squared_BNN / (squared_BNN.sum(dim=1, keepdim=True) + _EVALUATION_FLOOR)


@torch.no_grad()
def spread(maps_BKhw: Tensor, affinity_BNN: Tensor) -> Tensor:
    """Maps (B,K,h,w) times the affinity of their tokens: out_j = sum_i maps_i A_ij, float32 (unia.md 2.5)."""
    with full_precision(maps_BKhw):
        return (maps_BKhw.float().flatten(2) @ affinity_BNN.float()).view_as(maps_BKhw)
