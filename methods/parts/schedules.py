"""Learning-rate factors by step, and which parameters weight decay spares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

VERSION = 1

NO_DECAY = ("pos_embed", "cls_token", "mask_token")


def _warm(step: int, warmup: int, start_ratio: float) -> float:
    return start_ratio + (1.0 - start_ratio) * step / warmup


def warmup_cosine(step: int, total: int, warmup: int, start_ratio: float = 0.1) -> float:
    """Learning-rate factor: `start_ratio` to 1 over `warmup` steps, half-cosine to 0 at `total` (fsr 3)."""
    if step < warmup:
        return _warm(step, warmup, start_ratio)
    left = max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / left)))


def warmup_poly(step: int, total: int, warmup: int, start_ratio: float = 1e-6, power: float = 0.9) -> float:
    """Learning-rate factor: `start_ratio` to 1 over `warmup` steps, then (1 - step/total)^power (toco 3).

    The power counts from step 0, so the factor drops below 1 where the warm-up ends.
    """
    if step < warmup:
        return _warm(step, warmup, start_ratio)
    return (1.0 - min(step, total) / total) ** power


def decay_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    no_decay: tuple[str, ...] = NO_DECAY,
) -> list[dict[str, Any]]:
    """Optimiser groups of the trained parameters: decay on weights of two or more axes only (fsr 3).

    Biases, other one-axis parameters and those whose last name part is in `no_decay` are spared. Empty groups
    are left out.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            spare = parameter.ndim < 2 or name.rpartition(".")[2] in no_decay
            (spared if spare else decayed).append(parameter)
    groups = [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"params": spared, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
