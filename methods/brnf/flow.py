"""The normalizing flow of BRNF: coupling blocks and fixed permutations, and the scaling of what it reads (brnf.md 2.3).

Axes: N pixels, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.tensors import full_precision

ARCTAN = 0.636
"""About 2/pi, as FrEIA rounds it: the soft clamp lies within +-clamp."""
INIT_STD = 0.05
"""Standard deviation of every weight and bias of a new flow (brnf.md 2.3)."""


def flow_input(features_ND: Tensor, scale: str | float = "sqrt") -> Tensor:
    """Feature vectors (N,D) at one length: sqrt(D) with `scale` "sqrt", else `scale` itself (brnf.md 2.3).

    With sqrt(D) a coordinate has about unit variance, which the unit covariances of the latent classes ask for. A
    vector of zeros stays 0. Raises ValueError for another word.
    """
    if isinstance(scale, str) and scale != "sqrt":
        raise ValueError(f"scale {scale!r}: sqrt, or the length itself as a number")
    length = features_ND.shape[-1] ** 0.5 if isinstance(scale, str) else scale
    return F.normalize(features_ND, dim=-1) * length


def subnet(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Three linear layers with ReLU between, which give the scales and shifts of half a block."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class _Permuted(torch.autograd.Function):
    """Coordinates (N,D) in another order. The gradient of `a[:, order]` is a sum over places that may repeat; those of
    a permutation do not."""

    @staticmethod
    def forward(ctx: Any, a_ND: Tensor, order_D: Tensor) -> Tensor:
        ctx.save_for_backward(order_D)
        return a_ND.index_select(-1, order_D)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None]:
        (order_D,) = ctx.saved_tensors
        return grad_ND.index_select(-1, order_D.argsort()), None


def permuted(a_ND: Tensor, order_D: Tensor) -> Tensor:
    """Coordinate i of (N,D) is coordinate order[i] of `a_ND`; `order_D` holds each of D once."""
    found = _Permuted.apply(a_ND, order_D)
    assert isinstance(found, Tensor)
    return found


class _Scaled(torch.autograd.Function):
    """exp(log) x + shift with log = `most` atan(raw), and the sum of log over coordinates, (N,D) each, in half of the
    passes over memory that the operations one by one make forward and backward."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, raw_ND: Tensor, shift_ND: Tensor, most: float) -> tuple[Tensor, Tensor]:
        log_ND = torch.atan(raw_ND).mul_(most)
        logdet_N = log_ND.sum(dim=-1)
        scale_ND = log_ND.exp_()
        ctx.save_for_backward(x_ND, raw_ND, scale_ND)
        ctx.most = most
        return torch.addcmul(shift_ND, scale_ND, x_ND), logdet_N

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor, grad_N: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_ND, raw_ND, scale_ND = ctx.saved_tensors
        x_grad_ND = grad_ND * scale_ND
        raw_grad_ND = torch.addcmul(grad_N[..., None], x_grad_ND, x_ND)
        return x_grad_ND, raw_grad_ND.mul_(ctx.most).div_((raw_ND * raw_ND).add_(1.0)), grad_ND, None


class CouplingBlock(nn.Module):
    """Affine coupling of two halves, each moved by what the other says (GLOW; brnf.md 2.3).

    The first half has D // 2 coordinates; `net2` reads the second half, `net1` the new first half.
    """

    def __init__(self, dim: int, hidden: int, clamp: float):
        super().__init__()
        first, second = self.halves = dim // 2, dim - dim // 2
        self.clamp = clamp
        self.net1 = subnet(first, hidden, 2 * second)
        self.net2 = subnet(second, hidden, 2 * first)

    def _scaled(self, net: nn.Module, given_ND: Tensor, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """exp(log-scale) x + shift, and the sum of log-scales (N,)."""
        raw_ND, shift_ND = net(given_ND).chunk(2, dim=-1)
        moved_ND, logdet_N = _Scaled.apply(x_ND, raw_ND, shift_ND, self.clamp * ARCTAN)
        return moved_ND, logdet_N

    def _affine(self, net: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale in (-clamp, clamp) and shift."""
        raw, shift = net(given).chunk(2, dim=-1)
        return self.clamp * ARCTAN * torch.atan(raw), shift

    def forward(self, a_ND: Tensor) -> tuple[Tensor, Tensor]:
        """(N,D) and log|det J| (N,)."""
        one, two = a_ND.split(self.halves, dim=-1)
        one, logdet_one_N = self._scaled(self.net2, two, one)
        two, logdet_two_N = self._scaled(self.net1, one, two)
        return torch.cat([one, two], dim=-1), logdet_one_N + logdet_two_N

    def inverse(self, b_ND: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` made of (N,D), and the inverse's own log|det J| (N,)."""
        one, two = b_ND.split(self.halves, dim=-1)
        log_two, shift = self._affine(self.net1, one)
        two = (two - shift) * (-log_two).exp()
        log_one, shift = self._affine(self.net2, two)
        one = (one - shift) * (-log_one).exp()
        return torch.cat([one, two], dim=-1), -log_one.sum(dim=-1) - log_two.sum(dim=-1)


class Flow(nn.Module):
    """Coupling blocks, each followed by a fixed permutation of coordinates (brnf.md 2.3).

    Parameters `block{k}.net{1,2}.{0,2,4}.*` start as 0.05 N(0,1); buffers `perm{k}` int64 (D,), drawn by numpy's
    `RandomState(k)`: coordinate i of the output is coordinate perm[i] of the block. `hidden` channels inside the
    blocks, log-scales within +-`clamp`. Raises ValueError for fewer than two coordinates, or no block.
    """

    def __init__(self, dim: int, hidden: int = 256, blocks: int = 2, clamp: float = 2.0):
        super().__init__()
        if dim < 2 or blocks < 1 or hidden < 1:
            raise ValueError(f"dim {dim}, blocks {blocks}, hidden {hidden}: at least 2, 1 and 1")
        self.dim, self.blocks = dim, blocks
        for k in range(blocks):
            self.add_module(f"block{k}", CouplingBlock(dim, hidden, clamp))
            self.register_buffer(f"perm{k}", torch.from_numpy(np.random.RandomState(k).permutation(dim)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every weight and bias anew, from torch's generator."""
        for parameter in self.parameters():
            parameter.normal_(std=INIT_STD)

    def forward(self, a_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors z (N,D) and log|det J| (N,), nats; in the parameters' precision under autocast too."""
        with full_precision(a_ND):
            total_N = a_ND.new_zeros(a_ND.shape[:-1])
            for k in range(self.blocks):
                a_ND, logdet_N = self.get_submodule(f"block{k}")(a_ND)
                a_ND = permuted(a_ND, self.get_buffer(f"perm{k}"))
                total_N = total_N + logdet_N
            return a_ND, total_N

    def inverse(self, z_ND: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` maps to z (N,D), and the inverse's own log|det J| (N,): minus that of `forward`."""
        with full_precision(z_ND):
            total_N = z_ND.new_zeros(z_ND.shape[:-1])
            for k in reversed(range(self.blocks)):
                block = self.get_submodule(f"block{k}")
                assert isinstance(block, CouplingBlock)
                z_ND, logdet_N = block.inverse(permuted(z_ND, self.get_buffer(f"perm{k}").argsort()))
                total_N = total_N + logdet_N
            return z_ND, total_N
