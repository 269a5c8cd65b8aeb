"""fsr 2.6: a teacher that is a moving average of its student."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

VERSION = 1

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def make_teacher(module: ModuleT) -> ModuleT:
    """An exact copy of `module` whose parameters take no gradient; its train/eval mode is kept."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float, *, averaged: tuple[str, ...] = ("",)) -> None:
    """teacher <- momentum * teacher + (1-momentum) * student of all parameters; buffers copied (fsr 2.6).

    Parameters whose names start with none of `averaged` are copied instead. Raises
    ValueError where the two differ in the names of parameters or buffers.
    """
    ours, theirs = dict(teacher.named_parameters()), dict(student.named_parameters())
    kept, given = dict(teacher.named_buffers()), dict(student.named_buffers())
    if ours.keys() != theirs.keys() or kept.keys() != given.keys():
        odd = sorted((ours.keys() ^ theirs.keys()) | (kept.keys() ^ given.keys()))
        raise ValueError(f"teacher and student differ in {', '.join(odd)}")
    moved = [name for name in ours if name.startswith(averaged)]
    copied = [name for name in ours if not name.startswith(averaged)]
    if moved:
        torch._foreach_lerp_([ours[n] for n in moved], [theirs[n] for n in moved], 1.0 - momentum)
    if copied:
        torch._foreach_copy_([ours[n] for n in copied], [theirs[n] for n in copied])
    for name, buffer in kept.items():
        buffer.copy_(given[name])
