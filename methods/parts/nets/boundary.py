"""The two heads of an inter-pixel-relation network on five maps of a frozen backbone (irn.md 2.4).

Axes: B images, h w cells of the output, stride 4. Maps come coarser and coarser; a head learns nothing below itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.nets.stages import COUNT, Stages

VERSION = 1
STRIDE = 4
"""Pixels per cell of the output."""
DIMS = (64, 256, 512, 1024, 2048)
"""Channels of a ResNet-50's five maps: stem with its pooling, and the four layers."""
FACTORS = (1, 1, 2, 4, 4)
"""How much coarser each of them is than the output."""


def _branch(dim: int, width: int, groups: int, factor: int, *, relu: bool = True) -> nn.Sequential:
    """1x1 convolution, group norm, upsampling and then ReLU, as published."""
    layers: list[nn.Module] = [nn.Conv2d(dim, width, 1, bias=False), nn.GroupNorm(groups, width)]
    if factor > 1:
        layers.append(nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def _cut(map_BDhw: Tensor, size: tuple[int, int]) -> Tensor:
    """The top left of a map: upsampling overshoots where a size is odd."""
    if map_BDhw.shape[2] < size[0] or map_BDhw.shape[3] < size[1]:
        raise ValueError(f"a map of {tuple(map_BDhw.shape[2:])} cells does not cover {size}: its factor is too small")
    return map_BDhw[..., : size[0], : size[1]]


class EdgeHead(nn.Module):
    """Logits of a class boundary: each map by a 1x1 convolution of `width`, group norm (4 groups), upsampling by its
    factor and ReLU; all of them together by a 1x1 convolution with bias (irn.md 2.4).

    `forward(five maps, size=None)` -> (B,1,h,w). The size is that of the second map times its factor, or `size`.
    Raises ValueError for another number of maps, or for one that its factor does not make large enough.
    """

    def __init__(self, dims: Sequence[int] = DIMS, factors: Sequence[int] = FACTORS, width: int = 32):
        super().__init__()
        self.factors = tuple(factors)
        self.branches = nn.ModuleList(_branch(d, width, 4, f) for d, f in zip(dims, factors, strict=True))
        self.predict = nn.Conv2d(width * len(self.branches), 1, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        size = size or output_size(maps, self.factors)
        parts = [_cut(branch(x), size) for branch, x in zip(self.branches, maps, strict=True)]
        return self.predict(torch.cat(parts, dim=1))


class DisplacementHead(nn.Module):
    """Displacements, in rows and columns of the output's cells, from each cell to its instance's centroid (irn.md 2.4).

    `forward(five maps, size=None)` -> (B,2,h,w); sizes as `EdgeHead`. In eval mode the buffer `mean` is subtracted.
    Maps are first joined at the third map's resolution, which a factor of 2 or more brings to the output's.
    """

    mean: Tensor

    def __init__(self, dims: Sequence[int] = DIMS, factors: Sequence[int] = FACTORS):
        super().__init__()
        self.factors = tuple(factors)
        middle = self.factors[2]
        fine = [_branch(d, w, g, f) for d, w, g, f in zip(dims[:2], (64, 128), (8, 16), factors[:2], strict=True)]
        self.fine = nn.ModuleList(fine)
        self.deep = nn.ModuleList(
            _branch(dim, 256, 16, max(1, factor // middle)) for dim, factor in zip(dims[2:], factors[2:], strict=True)
        )
        self.join = _branch(3 * 256, 256, 16, middle)
        self.mix = _branch(64 + 128 + 256, 256, 16, 1)
        self.predict = nn.Conv2d(256, 2, 1, bias=False)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        size = size or output_size(maps, self.factors)
        middle = (int(maps[2].shape[2]), int(maps[2].shape[3]))
        fine = [_cut(branch(x), size) for branch, x in zip(self.fine, maps[:2], strict=True)]
        deep = [_cut(branch(x), middle) for branch, x in zip(self.deep, maps[2:], strict=True)]
        joined = _cut(self.join(torch.cat(deep, dim=1)), size)
        found = self.predict(self.mix(torch.cat([*fine, joined], dim=1)))
        return found if self.training else found - self.mean[:, None, None]


class BoundaryNet(nn.Module):
    """A frozen backbone in five stages and the heads that read its maps, at stride 4 (irn.md 2.4).

    `forward(images (B,3,H,W))` -> boundary logits (B,1,h,w) and displacements (B,2,h,w) or None; h = ceil(H/4). Maps
    finer than that are pooled to it as the published stem does; of coarser ones alone the output is a blown-up map.
    """

    def __init__(self, stages: Stages, *, displacement: bool = False):
        super().__init__()
        stages.freeze(COUNT)
        self.stages = stages
        factors = [max(1, stride // STRIDE) for stride in stages.strides]
        self.edge = EdgeHead(stages.dims, factors)
        self.displacement = DisplacementHead(stages.dims, factors) if displacement else None

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        size = (-(-int(images_B3HW.shape[2]) // STRIDE), -(-int(images_B3HW.shape[3]) // STRIDE))
        with torch.no_grad():
            maps = self.stages(images_B3HW, COUNT)
            for i, stride in enumerate(self.stages.strides):
                for _ in range((STRIDE // stride).bit_length() - 1):
                    maps[i] = F.max_pool2d(maps[i], 3, 2, 1)
            maps = [_covering(x, size, factor) for x, factor in zip(maps, self.edge.factors, strict=True)]
        logits = self.edge(maps, size)
        return logits, None if self.displacement is None else self.displacement(maps, size)


def _covering(map_BDhw: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """A map that its factor makes at least as large as the output: networks that resize their images fall short."""
    need = (-(-size[0] // factor), -(-size[1] // factor))
    if map_BDhw.shape[2] >= need[0] and map_BDhw.shape[3] >= need[1]:
        return map_BDhw
    return F.interpolate(map_BDhw, need, mode="bilinear", align_corners=False)


def output_size(maps: Sequence[Tensor], factors: Sequence[int]) -> tuple[int, int]:
    """Cells (h,w) of a head's output: those of the second map times its factor. Raises ValueError for other maps."""
    if len(maps) != len(factors):
        raise ValueError(f"{len(maps)} maps, but the head was built for {len(factors)}")
    return int(maps[1].shape[2]) * factors[1], int(maps[1].shape[3]) * factors[1]
