"""fsr 2.5 and 2.6: cross-entropies of student against teacher, temperatures, momenta and centres."""

from __future__ import annotations

import math

import torch
from torch import Tensor

VERSION = 1


def sharpened_cross_entropy(
    student_K: Tensor, teacher_K: Tensor, centre_K: Tensor, tau_s: float, tau_t: float
) -> Tensor:
    """Cross-entropy of softmax(student/tau_s) under softmax((teacher-centre)/tau_t), nats (fsr 2.5).

    `student_K` and `teacher_K` are (...,K), `centre_K` (K,); gives float32 (...). No gradient to the teacher.
    """
    with torch.no_grad():
        target = ((teacher_K.float() - centre_K.float()) / tau_t).softmax(dim=-1)
    return -(target * (student_K.float() / tau_s).log_softmax(dim=-1)).sum(dim=-1)


def class_loss(student_BK: Tensor, teacher_BK: Tensor, centre_K: Tensor, tau_s: float, tau_t: float) -> Tensor:
    """L_class: mean over images, teacher's class token of view 1, student's of view 2 (fsr 2.5)."""
    return sharpened_cross_entropy(student_BK, teacher_BK, centre_K, tau_s, tau_t).mean()


def patch_loss(
    student_BNK: Tensor,
    teacher_BNK: Tensor,
    centre_K: Tensor,
    tau_s: float,
    tau_t: float,
    mask_BN: Tensor | None = None,
) -> Tensor:
    """L_patch: mean over images of the mean over masked tokens; none masked counts 0 (fsr 2.5).

    `mask_BN` bool picks the tokens; None where both tensors hold the masked tokens only.
    """
    loss_BN = sharpened_cross_entropy(student_BNK, teacher_BNK, centre_K, tau_s, tau_t)
    if mask_BN is None:
        return loss_BN.sum(dim=1).div(max(1, loss_BN.shape[1])).mean()
    mask = mask_BN.to(loss_BN.dtype)
    return ((loss_BN * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)).mean()


@torch.no_grad()
def ema_centre(centre_K: Tensor, mean_K: Tensor, momentum: float = 0.9) -> Tensor:
    """The next centre (K,): momentum * centre + (1 - momentum) * mean teacher projection (fsr 2.5)."""
    return centre_K * momentum + mean_K.to(centre_K.dtype) * (1.0 - momentum)


def teacher_temperature(step: int, total: int, start: float, end: float, warm: float = 1 / 8) -> float:
    """tau_t: linear `start` to `end`, both included, over the first `warm` of all steps (fsr 2.5)."""
    steps = int(total * warm)
    if step >= steps:
        return end
    return start if steps < 2 else start + (end - start) * step / (steps - 1)


def ema_momentum(step: int, total: int, start: float) -> float:
    """Momentum of the teacher: `start` to 1 along half a cosine (fsr 2.6)."""
    return 1.0 - 0.5 * (1.0 - start) * (1.0 + math.cos(math.pi * step / total))
