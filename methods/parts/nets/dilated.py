"""Backbones as AGMM trains them: output stride 8, multi-grid, batch norm that learns (agmm.md 2.2, 3).

Axes: B images, D channels, H W cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from harness.api.encoders import given_encoder
from harness.errors import BadInput, Problem
from methods.parts.nets.backbones import RANDOM_WEIGHTS
from methods.parts.nets.deeplab import GroupBatchNorm
from methods.parts.nets.pyramids import Pyramid, TimmPyramid, build_pyramid

VERSION = 1
"""Raised when a backbone computes something else."""
CARD_STRIDE = 8
CARD_GRID = (2, 2, 4)
"""Factors on the dilations of the last stage's blocks (Cityscapes): 2, 4, 4 become 4, 8, 16."""
PROBE_CROP = 65


def dilated_backbone(
    name: str,
    multi_grid: bool | Sequence[int] = False,
    *,
    weights: str | None = RANDOM_WEIGHTS,
    crop: int = PROBE_CROP,
    drop: float = 0.0,
    output_stride: int = CARD_STRIDE,
) -> Pyramid:
    """The backbone `name` at output stride 8, its last stage multiplied by `multi_grid`: true is the card's 2, 2, 4.

    Networks that cannot be dilated keep their stride: an `output_stride` that is not the card's is refused there, as is
    `multi_grid` without as many blocks in the last stage. A network that is given as a module stays as it is. Words and
    errors else as `build_pyramid`.
    """
    pyramid = build_pyramid(name, weights, crop=crop, drop=drop, output_stride=output_stride)
    if given_encoder() is not None:
        return pyramid
    if output_stride not in (CARD_STRIDE, pyramid.stride):
        found = f"{name} has an output stride of {pyramid.stride}, not {output_stride}"
        raise BadInput(Problem("output_stride", found, "leave it out, or for instance backbone=resnet50s"))
    if multi_grid:
        _multiply_dilations(pyramid, name, CARD_GRID if multi_grid is True else tuple(multi_grid))
    return pyramid


def _multiply_dilations(pyramid: Pyramid, name: str, factors: Sequence[int]) -> None:
    net: Any = pyramid.net if isinstance(pyramid, TimmPyramid) else None
    last = getattr(net, net.feature_info.module_name()[-1], None) if net is not None else None
    blocks = list(last.children()) if isinstance(last, nn.Module) else []
    convolutions = [_dilating(block) for block in blocks]
    if len(blocks) != len(factors) or not all(convolutions):
        found = f"{name} has no last stage of {len(factors)} blocks with 3x3 convolutions"
        raise BadInput(Problem("multi_grid", found, "multi_grid=false, or for instance backbone=resnet50s"))
    for some, factor in zip(convolutions, factors, strict=True):
        for conv in some:
            dilation = conv.dilation[0] * factor
            conv.dilation, conv.padding = (dilation, dilation), (dilation, dilation)


def _dilating(block: nn.Module) -> list[nn.Conv2d]:
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    return [m for m in convolutions if m.kernel_size == (3, 3) and m.padding == m.dilation]


class _GroupBatchNormAct(GroupBatchNorm):
    """timm's batch norm with dropout and activation behind it, over the group."""

    def __init__(self, channels: int, drop: nn.Module, act: nn.Module):
        super().__init__(channels)
        self.drop, self.act = drop, act

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x_BDHW)))


def train_batch_norm(module: nn.Module) -> int:
    """Replace every batch norm by one over the group at hand (`GroupBatchNorm`), with its parameters and statistics.

    Returns how many there were. Their running statistics move by `absorb_stats`, so that they come out the same
    however groups are spread; the published code's SyncBN over one group.
    """
    count = 0
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, GroupBatchNorm):
            setattr(module, name, _over_the_group(child))
            count += 1
        else:
            count += train_batch_norm(child)
    return count


def _over_the_group(norm: nn.BatchNorm2d) -> GroupBatchNorm:
    if isinstance(norm, BatchNormAct2d):
        made: GroupBatchNorm = _GroupBatchNormAct(norm.num_features, norm.drop, norm.act)
    else:
        made = GroupBatchNorm(norm.num_features)
    made.eps = norm.eps
    made.load_state_dict(norm.state_dict())
    return made
