"""Learning-rate factors by step, which parameters weight decay spares, and the optimisers of FSR, ToCo and UniA."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from harness.api.method import OptimizerPlan

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


def cosine_adamw(
    body: Iterable[tuple[str, nn.Parameter]],
    heads: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    head_lr: float,
    weight_decay: float,
    total: int,
    warmup: int,
    start_ratio: float,
    no_decay: tuple[str, ...] = NO_DECAY,
) -> OptimizerPlan:
    """AdamW with `warmup_cosine` (fsr 3): named parameters of the body at `lr`, without decay where named so, those of
    heads at `head_lr`; total and warmup in steps."""
    groups = [
        *decay_groups(body, lr=lr, weight_decay=weight_decay, no_decay=no_decay),
        *decay_groups(heads, lr=head_lr, weight_decay=weight_decay),
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    return OptimizerPlan(optimizer, lambda step: warmup_cosine(step, total, warmup, start_ratio))


def power_adamw(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    head_lr: float,
    weight_decay: float,
    total: int,
    warmup: int,
    start_ratio: float,
    power: float,
) -> OptimizerPlan:
    """AdamW that decays every trained parameter, with `warmup_poly` (toco 3, unia 3).

    Parameters named `encoder.*` learn at `lr`, all others at `head_lr`; total and warmup in steps.
    """
    encoder: list[nn.Parameter] = []
    heads: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            (encoder if name.startswith("encoder.") else heads).append(parameter)
    groups = [{"params": encoder, "lr": lr}, {"params": heads, "lr": head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    return OptimizerPlan(optimizer, lambda step: warmup_poly(step, total, warmup, start_ratio, power))
