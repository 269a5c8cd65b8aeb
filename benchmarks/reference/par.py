"""PAR (operators.md A2) with the structure of its published code: one-channel dilated convolutions that stack all 48
neighbours of a map, [B,C,48,H,W] floats per iteration."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.par import DILATIONS, position_weights


def stacked_neighbours(maps_BCHW: Tensor) -> Tensor:
    """Every neighbour of every pixel: (B,C,48,H,W), border replicated, one padded convolution per dilation."""
    batch, channels, height, width = maps_BCHW.shape
    kernel = torch.zeros(8, 1, 3, 3)
    for k, place in enumerate(i for i in range(9) if i != 4):
        kernel[k, 0, place // 3, place % 3] = 1.0
    flat = maps_BCHW.reshape(batch * channels, 1, height, width)
    found = []
    for dilation in DILATIONS:
        padded = F.pad(flat, [dilation] * 4, mode="replicate")
        found.append(F.conv2d(padded, kernel, dilation=dilation).view(batch, channels, 8, height, width))
    return torch.cat(found, dim=2)


@torch.no_grad()
def par(image_B3HW: Tensor, scores_BKhw: Tensor, iterations: int = 10) -> Tensor:
    """Scores (B,K,H,W) refined along the image's colours (A2); image in [0,1]."""
    scores = F.interpolate(scores_BKhw, size=image_B3HW.shape[-2:], mode="bilinear", align_corners=True)
    around = stacked_neighbours(image_B3HW)
    spread = around.std(dim=2, keepdim=True)
    alike = -(((around - image_B3HW[:, :, None]).abs() / (spread + 1e-8) / 0.3) ** 2)
    weights = alike.mean(dim=1, keepdim=True).softmax(dim=2)
    weights = weights + 0.01 * torch.tensor(position_weights()).view(1, 1, -1, 1, 1)
    for _ in range(iterations):
        scores = (stacked_neighbours(scores) * weights).sum(dim=2)
    return scores
