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
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1-momentum) * student of all parameters; buffers copied (fsr 2.6).

    Raises ValueError where the two differ in the names of parameters or buffers.
    """
    ours, theirs = dict(teacher.named_parameters()), dict(student.named_parameters())
    kept, given = dict(teacher.named_buffers()), dict(student.named_buffers())
    if ours.keys() != theirs.keys() or kept.keys() != given.keys():
        odd = sorted((ours.keys() ^ theirs.keys()) | (kept.keys() ^ given.keys()))
        raise ValueError(f"teacher and student differ in {', '.join(odd)}")
    if ours:
        torch._foreach_lerp_(list(ours.values()), [theirs[name] for name in ours], 1.0 - momentum)
    for name, buffer in kept.items():
        buffer.copy_(given[name])
