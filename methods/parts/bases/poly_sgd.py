"""SGD with a power schedule as IRN, SIPE and FSAE's base run it, whose momentum is almost none (irn.md 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

VERSION = 1
RELEASED_MOMENTUM = 1e-4
"""The published wrapper passes the weight decay where torch's SGD has its momentum (sipe.md 7.1)."""


class ScheduledSGD(NamedTuple):
    """An optimiser and what multiplies its learning rates."""

    optimizer: torch.optim.SGD
    factor: Callable[[int], float]
    """Of a step, from 0."""


def poly(step: int, total: int, power: float = 0.9) -> float:
    """Learning-rate factor (1 - step/total)^power; from the last step of `total` on it stays (sipe.md 3)."""
    return (1.0 - min(step, total - 1) / total) ** power


def poly_sgd(
    groups: Iterable[dict[str, Any]],
    *,
    weight_decay: float,
    momentum: float = RELEASED_MOMENTUM,
    total: int,
    power: float = 0.9,
) -> ScheduledSGD:
    """SGD on parameter groups, each with its `lr`, and the factor of a step (sipe.md 3, irn.md 3).

    Raises ValueError for a `total` below 1 and for a group without `lr`.
    """
    groups = [dict(group) for group in groups]
    if total < 1:
        raise ValueError(f"total {total}: the schedule needs at least one step")
    if any("lr" not in group for group in groups):
        raise ValueError("every parameter group needs its lr")
    optimizer = torch.optim.SGD(groups, lr=groups[0]["lr"], momentum=momentum, weight_decay=weight_decay)
    return ScheduledSGD(optimizer, lambda step: poly(step, total, power))
