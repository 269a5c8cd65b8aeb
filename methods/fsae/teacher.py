"""FSAE's teacher: a moving average of what the student trains (fsae.md 2.3)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def average_trained(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1-momentum) * student, in place, of parameters that the student trains (fsae.md
    3).

    Frozen parameters and buffers stay as they are; momentum 1 never moves the teacher, 0 makes it the student. Raises
    ValueError where the two differ in the names of parameters.
    """
    ours, theirs = dict(teacher.named_parameters()), dict(student.named_parameters())
    if ours.keys() != theirs.keys():
        raise ValueError(f"teacher and student differ in {', '.join(sorted(ours.keys() ^ theirs.keys()))}")
    moved = [name for name, parameter in theirs.items() if parameter.requires_grad]
    if moved:
        torch._foreach_lerp_([ours[n] for n in moved], [theirs[n] for n in moved], 1.0 - momentum)
