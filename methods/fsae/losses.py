"""FSAE's consistency between the labels of the weak view and the maps of the strong one (fsae.md 2.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.fsae.labels import filter_absent

OVER = ("all", "selected")


def consistency_loss(
    logits_BKhw: Tensor,
    label_Bhw: Tensor,
    mask_Bhw: Tensor,
    tags_BC: Tensor,
    *,
    absent: str,
    background: int = 0,
    over: str = "all",
) -> Tensor:
    """L_con: cross-entropy of the filtered logits with the labels on masked pixels: scalar, nats (fsae.md 2.4).

    Divided by the number of all pixels (`over` "all": its size scales with the share of the mask) or of the masked ones
    ("selected"); 0 where the mask is empty. Labels are channels of the logits. Raises ValueError for another word.
    """
    if over not in OVER:
        raise ValueError(f"over {over!r}: one of {', '.join(OVER)}")
    mask_Bhw = mask_Bhw.bool()
    logits_BKhw = filter_absent(logits_BKhw.float(), tags_BC, absent=absent, background=background)
    # Labels of pixels that do not count may be of an absent class, whose cross-entropy is infinite.
    target_Bhw = torch.where(mask_Bhw, label_Bhw.long(), -100)
    total = F.cross_entropy(logits_BKhw, target_Bhw, ignore_index=-100, reduction="sum")
    return total / (mask_Bhw.sum().clamp(min=1) if over == "selected" else mask_Bhw.numel())
