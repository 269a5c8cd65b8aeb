"""What BRNF's densities and seeds ask of its maps and features: L_cal, L_gui, L_nce (brnf.md 2.4, 2.6, 2.7).

Axes: B images, K labels (background at 0), N pixels, A anchors, M bank entries of a class, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.brnf.density import TIE
from methods.parts.tensors import full_precision


def calibration_loss(cam_NK: Tensor, posterior_NK: Tensor, gamma: float = 0.8) -> Tensor:
    """L_cal: mean absolute difference of CAM and posterior over classes and pixels whose posterior reaches `gamma`:
    scalar in [0,1]; 0 where none does (brnf.md 2.4).

    Both in [0,1]. Gradient to the CAM only.
    """
    posterior_NK = posterior_NK.detach()
    sure_N = (posterior_NK.amax(dim=1) >= gamma - TIE).to(cam_NK.dtype)
    total = ((cam_NK - posterior_NK).abs().sum(dim=1) * sure_N).sum()
    return total / (cam_NK.shape[1] * sure_N.sum().clamp(min=1.0))


def guidance_loss(proto_BKhw: Tensor, seed_BKhw: Tensor, valid_BKhw: Tensor) -> Tensor:
    """L_gui: mean absolute difference of prototype CAM and refined seed over valid entries: scalar in [0,1] (brnf.md
    2.6).

    `valid_BKhw` in {0,1}: classes of the image on real pixels; 0 where nothing is valid. Gradient to the CAM only.
    """
    valid = valid_BKhw.to(proto_BKhw.dtype).expand_as(proto_BKhw)
    return ((proto_BKhw - seed_BKhw.detach()).abs() * valid).sum() / valid.sum().clamp(min=1.0)


def bank_contrast(anchor_AD: Tensor, label_A: Tensor, bank_KMD: Tensor, weight_KM: Tensor, tau: float = 0.1) -> Tensor:
    """L_nce: InfoNCE of each anchor with every entry of its class against all entries of the others: scalar, nats
    (brnf.md 2.7).

    Anchors and entries are of unit length. A term is multiplied by its entry's weight and divided by the number of
    the class's entries; weight 0 marks an empty place, which is no negative either. Mean over the anchors whose class
    has entries, 0 without any. Gradient to the anchors only.
    """
    with full_precision(anchor_AD):
        dtype = torch.promote_types(anchor_AD.dtype, torch.float32)
        weight_KM = weight_KM.detach().to(dtype)
        filled_KM = weight_KM > 0
        # Empty places may hold anything; what is masked must be finite for the gradient of the rest.
        bank_KMD = bank_KMD.detach().to(dtype).masked_fill(~filled_KM[:, :, None], 0.0)
        logits_AKM = torch.einsum("ad,kmd->akm", anchor_AD.to(dtype), bank_KMD) / tau
        own_AK1 = torch.arange(len(bank_KMD), device=label_A.device)[None, :, None] == label_A[:, None, None]
        others_A1 = logits_AKM.masked_fill(own_AK1 | ~filled_KM, -torch.inf).flatten(1).logsumexp(dim=1, keepdim=True)
        row_AM = torch.arange(len(label_A), device=label_A.device)
        logits_AM, weight_AM = logits_AKM[row_AM, label_A], weight_KM[label_A]
        term_AM = torch.logaddexp(logits_AM, others_A1) - logits_AM
        entries_A = filled_KM.sum(dim=1)[label_A]
        loss_A = (term_AM * weight_AM).sum(dim=1) / entries_A.clamp(min=1)
        return loss_A.sum() / (entries_A > 0).sum().clamp(min=1)
