"""Blocks of timm's ViTs written out: their branches times what was drawn for them, and compiled, one program for all.

Axes: B images, N tokens, D channels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.errors import BadInput, Problem

Drop = Callable[[Tensor], Tensor]
BlockPass = Callable[[Any, Tensor, Tensor | None], Tensor]
PROGRAMS = 64
"""Compiled at most: with gradient and without, in training and not, fp32 and bfloat16, one size and any size."""
COMPILER = "g++"
"""PyTorch builds its programs with it, or with that of $CXX; for GPUs with gcc, which comes with it."""


def added(
    block: Any, x_BND: Tensor, mixed_BND: Tensor, depth_2B: Tensor | None, dropped: tuple[Drop, Drop] | None = None
) -> Tensor:
    """What a block makes of tokens, once its attention gave `mixed_BND`; `depth_2B` multiplies its branches, in place
    of what it would draw, by `dropped` where that is not its own stochastic depth."""
    first, second = dropped or (block.drop_path1, block.drop_path2)
    x_BND = x_BND + kept(block.ls1(mixed_BND), first, depth_2B, 0)
    return x_BND + kept(block.ls2(block.mlp(block.norm2(x_BND))), second, depth_2B, 1)


def kept(branch_BND: Tensor, dropped: Drop, depth_2B: Tensor | None, which: int) -> Tensor:
    """A block's branch times what was drawn for it, or after stochastic depth of its own."""
    if depth_2B is None:
        return dropped(branch_BND)
    return branch_BND * depth_2B[which, :, None, None].to(branch_BND.dtype)


def drawing_nothing(block: Any, x_BND: Tensor, depth_2B: Tensor | None) -> Tensor:
    """A block that does not draw. Its own rate of stochastic depth is not read: every block has another one, and would
    be compiled by itself."""
    return added(block, x_BND, block.attn(block.norm1(x_BND)), depth_2B, (_whole, _whole))


def _whole(branch_BND: Tensor) -> Tensor:
    return branch_BND


def compiled() -> BlockPass:
    """`drawing_nothing` as one compiled graph. Raises BadInput where this machine has no compiler for it."""
    compiler = os.environ.get("CXX", COMPILER)
    if not shutil.which(compiler):
        found = f"blocks are compiled by a C++ compiler, and this machine has no {compiler}"
        raise BadInput(Problem("compile_blocks", found, "install g++, or name a compiler in the variable CXX"))
    # PyTorch's overloads leave out some of its words. Programs of other networks of this process are not counted.
    return torch.compile(  # type: ignore[call-overload]
        drawing_nothing, fullgraph=True, recompile_limit=PROGRAMS, isolate_recompiles=True
    )
