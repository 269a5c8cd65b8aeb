"""The DeepLabV3+ decoder: atrous pyramid on the deep map, fused with a stride-4 map (agmm.md 2.2).

Axes: B images, D S channels, K labels, h w cells of the deep map, H W cells of the stride-4 map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from harness.api.fitting import tokens

VERSION = 1
"""Raised when the decoder computes something else."""
CARD_RATES = (6, 12, 18)
"""Dilations of the pyramid on the cards' grid of 28 cells (448 pixels at stride 16)."""
CARD_WIDTH = 256
CARD_SKIP = 48
CARD_DROPOUT = 0.5
BN_MOMENTUM = 0.1
SKIP_STRIDE = 4


class GroupBatchNorm(nn.BatchNorm2d):
    """Batch norm over the group at hand, whose running statistics move only by `absorb_stats`.

    So they come out the same however a batch is spread over groups and workers (design, Group). Works on a single
    value a channel, as the pooled branch of one image has it: the output is then the bias.
    """

    over_group = True
    """Tells the engine that it is synchronised in this way (docs/methods.md)."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_BDHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BDHW)
        values = x_BDHW.detach().float()
        single = values.numel() == values.shape[1]
        var_D, mean_D = torch.var_mean(values, (0, 2, 3), correction=0 if single else 1)
        self.seen.append((mean_D, var_D))
        if single:
            return x_BDHW * 0.0 + self.bias[:, None, None]
        return torch.batch_norm(
            x_BDHW, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled
        )


class Backbone(Protocol):
    """What the decoder has to know of what it stands on."""

    dim: int
    stride: int
    skip_dim: int | None


def _norms(module: nn.Module) -> Iterator[tuple[str, GroupBatchNorm]]:
    return ((name, m) for name, m in module.named_modules() if isinstance(m, GroupBatchNorm))


def take_stats(module: nn.Module) -> dict[str, Tensor]:
    """Mean and variance (2,D) that each `GroupBatchNorm` saw since the last call, averaged over its forwards."""
    stats = {}
    for name, norm in _norms(module):
        if norm.seen:
            stats[f"bn.{name}"] = torch.stack([torch.stack(pair) for pair in norm.seen]).mean(0)
            norm.seen = []
    return stats


@torch.no_grad()
def absorb_stats(module: nn.Module, stats: Mapping[str, Tensor], momentum: float = BN_MOMENTUM) -> None:
    """Move the running statistics of each `GroupBatchNorm` towards those of a step, as `take_stats` returns them."""
    for name, norm in _norms(module):
        seen = stats.get(f"bn.{name}")
        if seen is not None and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.lerp_(seen[0].to(norm.running_mean), momentum)
            norm.running_var.lerp_(seen[1].to(norm.running_var), momentum)


def conv_bn_relu(inside: int, outside: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bias-free convolution that keeps the size, batch norm over the group, ReLU."""
    conv = nn.Conv2d(inside, outside, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    return nn.Sequential(conv, GroupBatchNorm(outside), nn.ReLU(inplace=True))


def fitted_rates(grid: int) -> tuple[int, ...]:
    """Dilations on a deep map of `grid` cells a side: the card's at 28, in proportion elsewhere (design 4 d).

    448 pixels at stride 16 give 6, 12, 18 and at stride 8 the doubled ones, as DeepLab has it.
    """
    return tuple(tokens(rate, grid) for rate in CARD_RATES)


def doublings(stride: int) -> int:
    """Doublings from a deep map of this stride to about stride 4."""
    return max(0, round(math.log2(stride / SKIP_STRIDE)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3, global pool; (B,D,h,w) -> (B,width,h,w)."""

    def __init__(self, dim: int, width: int, rates: tuple[int, ...], dropout: float):
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(dim, width), *(conv_bn_relu(dim, width, 3, rate) for rate in rates)]
        )
        self.pooled = conv_bn_relu(dim, width)
        self.project = conv_bn_relu(width * (len(rates) + 2), width)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, deep_BDhw: Tensor) -> Tensor:
        pooled_BD11 = self.pooled(deep_BDhw.mean((2, 3), keepdim=True))
        maps = [*(branch(deep_BDhw) for branch in self.branches), pooled_BD11.expand(-1, -1, *deep_BDhw.shape[2:])]
        return self.dropout(self.project(torch.cat(maps, 1)))


class Lift(nn.Module):
    """A finer map from the deep one, for networks without one: `steps` doublings (B,D,h,w) -> (B,width,h 2^n,w 2^n).

    Transposed 2x2 convolutions with layer norm and GELU between them: ViTDet's simple feature pyramid.
    """

    def __init__(self, dim: int, width: int, steps: int):
        super().__init__()
        layers: list[nn.Module] = []
        for step in range(steps):
            layers += [nn.ConvTranspose2d(dim if step == 0 else width, width, 2, 2)]
            layers += [LayerNorm2d(width), nn.GELU()] if step + 1 < steps else []
        self.layers = nn.Sequential(*layers) if layers else nn.Conv2d(dim, width, 1)

    def forward(self, deep_BDhw: Tensor) -> Tensor:
        return self.layers(deep_BDhw)


class DeepLabV3Plus(nn.Module):
    """Pyramid, stride-4 skip of at most 48 channels, two 3x3 convolutions, 1x1 classifier with bias.

    `forward(deep (B,D,h,w), skip (B,S,H,W))` -> logits (B,K,H,W). `skip_dim` None makes the skip from the deep map
    by `lift` doublings (`Lift`); `forward` then takes None for it. `align_corners` as in the published code of AGMM.
    """

    def __init__(
        self,
        dim: int,
        skip_dim: int | None,
        num_labels: int,
        width: int = CARD_WIDTH,
        rates: tuple[int, ...] = CARD_RATES,
        dropout: float = CARD_DROPOUT,
        lift: int = 2,
        align_corners: bool = False,
    ):
        super().__init__()
        skip_width = min(CARD_SKIP, max(8, width // 2))
        self.align_corners = align_corners
        self.lift = Lift(dim, width, lift) if skip_dim is None else None
        self.aspp = ASPP(dim, width, rates, dropout)
        self.reduce = conv_bn_relu(width if skip_dim is None else skip_dim, skip_width)
        self.fuse = nn.Sequential(conv_bn_relu(width + skip_width, width, 3), conv_bn_relu(width, width, 3))
        self.classify = nn.Conv2d(width, num_labels, 1)

    def features(self, deep_BDhw: Tensor, skip_BSHW: Tensor | None) -> Tensor:
        """The map (B,width,H,W) before the classifier, not negative (F of agmm.md 2.2)."""
        if self.lift is not None:
            skip_BSHW = self.lift(deep_BDhw)
        if skip_BSHW is None:
            raise ValueError("this decoder needs a stride-4 map")
        wide = self.aspp(deep_BDhw)
        size = (int(skip_BSHW.shape[2]), int(skip_BSHW.shape[3]))
        wide = F.interpolate(wide, size, mode="bilinear", align_corners=self.align_corners)
        return self.fuse(torch.cat([wide, self.reduce(skip_BSHW)], 1))

    def forward(self, deep_BDhw: Tensor, skip_BSHW: Tensor | None) -> Tensor:
        return self.classify(self.features(deep_BDhw, skip_BSHW))


def fitted_decoder(backbone: Backbone, num_labels: int, *, width: int, grid: int, dropout: float) -> DeepLabV3Plus:
    """The decoder on a backbone, fitted to its size: width at most the card's 256, dilations by a crop's `grid`."""
    width, rates = min(CARD_WIDTH, width), fitted_rates(grid)
    lift = doublings(backbone.stride)
    return DeepLabV3Plus(backbone.dim, backbone.skip_dim, num_labels, width, rates, dropout, lift=lift)
