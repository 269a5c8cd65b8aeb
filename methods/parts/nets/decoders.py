"""Decoders on one deep map: LargeFOV (A9), and the four rates of DeepLabV2."""

from __future__ import annotations

import math

from torch import Tensor, nn

VERSION = 1


class LargeFOV(nn.Module):
    """Two dilated 3x3 convolutions and a 1x1 classifier, no bias or norm: (B,D,h,w) -> logits (B,K,h,w) (A9).

    `kaiming` starts every convolution Kaiming-normal by fan-out (FSR); else PyTorch's start stays (ToCo).
    """

    def __init__(self, in_dim: int, num_labels: int, width: int = 512, kaiming: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_dim, width, 3, padding=5, dilation=5, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=5, dilation=5, bias=False)
        self.classify = nn.Conv2d(width, num_labels, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        if kaiming:
            for conv in (self.first, self.second, self.classify):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, tokens_BDhw: Tensor) -> Tensor:
        hidden = self.act(self.first(tokens_BDhw))
        return self.classify(self.act(self.second(hidden)))


DEEPLABV2_RATES = (6, 12, 18, 24)
DEEPLABV2_CELLS = 41
"""Cells a side of the smallest crop that the field trains DeepLabV2 with: 321 pixels at stride 8."""


class DeepLabV2(nn.Module):
    """Four dilated 3x3 classifiers with bias, summed: (B,D,h,w) -> logits (B,K,h,w), started at a deviation of .01."""

    def __init__(self, in_dim: int, num_labels: int, rates: tuple[int, ...] = DEEPLABV2_RATES) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(in_dim, num_labels, 3, padding=rate, dilation=rate) for rate in rates)
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=0.01)

    def forward(self, deep_BDhw: Tensor) -> Tensor:
        first, *others = self.branches
        total: Tensor = first(deep_BDhw)
        for branch in others:
            total = total + branch(deep_BDhw)
        return total


def deeplabv2_rates(grid: int) -> tuple[int, ...]:
    """Dilations on a deep map of `grid` cells a side: the field's from 41 cells on, in proportion below."""
    share = min(1.0, grid / DEEPLABV2_CELLS)
    return tuple(max(1, math.floor(rate * share + 0.5)) for rate in DEEPLABV2_RATES)
