"""FSR's losses on the tokens that were projected at all."""

from __future__ import annotations

from torch import Tensor

from methods.parts.ops.distillation import sharpened_cross_entropy


def masked_patch_loss(
    student_MK: Tensor, teacher_MK: Tensor, masked_BN: Tensor, centre_K: Tensor, tau_s: float, tau_t: float
) -> Tensor:
    """L_patch of the M masked tokens alone, in row-major order of `masked_BN`: the mean over images of
    each image's mean; equal to `methods.parts.ops.distillation.patch_loss` over all tokens (fsr.md 2.5)."""
    loss_M = sharpened_cross_entropy(student_MK, teacher_MK, centre_K, tau_s, tau_t)
    per_image_B = masked_BN.sum(dim=1)
    image_M = masked_BN.nonzero()[:, 0]
    return (loss_M / per_image_B[image_M]).sum() / len(masked_BN)
