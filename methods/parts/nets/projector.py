"""A10: the projection head onto prototypes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.tensors import full_precision

VERSION = 1


class Projector(nn.Module):
    """Three-layer perceptron, unit length, cosines to prototypes: (...,D) -> (...,K) in [-1,1] (A10).

    The gain of the weight-normalised layer is 1 for ever, so it is no parameter.
    """

    def __init__(self, dim: int, hidden: int = 2048, bottleneck: int = 256, out: int = 4096) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Linear(bottleneck, out, bias=False)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens_D: Tensor) -> Tensor:
        inner = self.mlp(tokens_D)
        # Temperatures of a few hundredths stretch these cosines: the 8 bits that autocast would leave them are too few.
        with full_precision(inner):
            unit = F.normalize(inner.float(), dim=-1)
            return F.linear(unit, F.normalize(self.prototypes.weight.float(), dim=-1))
