"""The consistency of a student with its teacher on unlabelled pixels (sparse_baselines.md 2).

Axes: B images, K labels, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api.vocabulary import IGNORE
from methods.parts.tensors import full_precision

TARGETS = ("hard", "kl", "kl_mean")
MASKS = ("threshold", "share", "none")


def consistency_loss(
    student_BKHW: Tensor,
    teacher_BKHW: Tensor,
    label_BHW: Tensor,
    content_BHW: Tensor,
    tau: float = 0.95,
    *,
    target: str = "hard",
    mask: str = "threshold",
) -> Tensor:
    """L_u, from logits or log-probabilities: mean over unlabelled real pixels; scalar, nats, 0 where there are none.

    No gradient goes to the teacher (sparse_baselines.md 2.3, 2.1).
    `target`: cross-entropy with the teacher's label (hard), the divergence of the two (kl), or that over K as published
    (kl_mean). `mask`: pixels where the teacher's probability reaches `tau` count (threshold), all count times the share
    of pixels of the group, labelled and padded ones too, where it does (share), or all count (none).
    Raises ValueError for another target or mask.
    """
    if target not in TARGETS or mask not in MASKS:
        raise ValueError(f"target {target!r} of {', '.join(TARGETS)}, mask {mask!r} of {', '.join(MASKS)}")
    with full_precision(student_BKHW):
        log_student = student_BKHW.float().log_softmax(1)
        with torch.no_grad():
            log_teacher = teacher_BKHW.float().log_softmax(1)
            surest_BHW, guess_BHW = log_teacher.max(1)
            # In probabilities, as the card has it: a logarithm of tau rounds otherwise at the very threshold.
            sure_BHW = surest_BHW.exp() >= tau
            free_BHW = (label_BHW == IGNORE) & content_BHW.bool()
            counted_BHW = free_BHW & sure_BHW if mask == "threshold" else free_BHW
        if target == "hard":
            cost_BHW = F.nll_loss(log_student, guess_BHW, reduction="none")
        else:
            cost_BHW = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
        cost = (cost_BHW * counted_BHW).sum() / free_BHW.sum().clamp(min=1)
        if target == "kl_mean":
            cost = cost / student_BKHW.shape[1]
        return cost * sure_BHW.float().mean() if mask == "share" else cost


def warm_momentum(step: int, momentum: float) -> float:
    """The teacher's momentum at a step: min(1 - 1/(step+1), momentum), so that the first step copies the student."""
    return min(1.0 - 1.0 / (step + 1), momentum)


def ramp(fraction: float, length: float) -> float:
    """exp(-5 (1-x)^2) with x the share of `length` (a share of T) that lies behind, 1 after it or for a length of 0."""
    x = min(1.0, fraction / length) if length > 0 else 1.0
    return math.exp(-5.0 * (1.0 - x) ** 2)
