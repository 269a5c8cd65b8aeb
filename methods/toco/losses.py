"""ToCo's contrast of class tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.tensors import full_precision

EPS = 1e-4


def ctc_loss(
    teacher_BVK: Tensor, student_BnK: Tensor, positive_Bn: Tensor, tau: float, *, constant_term: bool = True
) -> Tensor:
    """Class-token contrast: scalar, nats, float32, mean over images (toco.md 2.5).

    Each of V teacher projections (no gradient) pulls the student's projections of crops that show the object, and
    pushes the others. `positive_Bn` bool. `constant_term` adds -ln(1/(1 + sum of negatives)) once a view, as published.
    """
    with full_precision(student_BnK):
        logits_BVn = teacher_BVK.detach().float() @ student_BnK.float().transpose(1, 2) / tau
        positive_B1n = positive_Bn[:, None]
        # ln(sum of negatives + EPS); with all of a head's cosines at 1, exp itself would leave float32.
        push_BV1 = logits_BVn.masked_fill(positive_B1n, -torch.inf).logsumexp(dim=-1, keepdim=True)
        push_BV1 = torch.logaddexp(push_BV1, torch.full_like(push_BV1, math.log(EPS)))
        total_B = F.softplus(push_BV1 - logits_BVn).masked_fill(~positive_B1n, 0.0).sum(dim=(1, 2))
        if constant_term:
            total_B = total_B + F.softplus(push_BV1).sum(dim=(1, 2))
        return (total_B / (teacher_BVK.shape[1] * (positive_Bn.sum(dim=1) + EPS))).mean()
