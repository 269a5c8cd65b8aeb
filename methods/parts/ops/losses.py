"""Classification loss and A7: segmentation losses on label maps with ignored pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.vocabulary import IGNORE
from methods.parts.ops.cam import resize

VERSION = 1


def multilabel_soft_margin(logits_BC: Tensor, tags_BC: Tensor) -> Tensor:
    """Mean binary cross-entropy over classes and images: scalar, nats (fsr 2.5 L_cls, one head)."""
    return F.binary_cross_entropy_with_logits(logits_BC.float(), tags_BC.float())


def _pixel_cross_entropy(logits_BKhw: Tensor, label_BHW: Tensor) -> Tensor:
    """Cross-entropy (B,H,W) in nats, 0 where ignored, of logits resized to the labels' size."""
    size = (int(label_BHW.shape[-2]), int(label_BHW.shape[-1]))
    logits = resize(logits_BKhw.float().contiguous(), size)  # the softmax would copy them at full size otherwise
    return F.cross_entropy(logits, label_BHW.long(), ignore_index=IGNORE, reduction="none")


def balanced_segmentation_loss(logits_BKhw: Tensor, label_BHW: Tensor) -> Tensor:
    """Half the mean cross-entropy over background pixels plus half that over class pixels: scalar, nats (A7).

    Means run over the group; a set without pixels counts 0. `label_BHW`: 0 background, 1..K-1, 255 ignored.
    """
    loss_BHW = _pixel_cross_entropy(logits_BKhw, label_BHW)
    background_BHW = label_BHW == 0
    labelled_BHW = label_BHW != IGNORE
    n_bg = background_BHW.sum()
    n_fg = labelled_BHW.sum() - n_bg
    factor_BHW = torch.where(background_BHW, 0.5 / n_bg.clamp(min=1), 0.5 / n_fg.clamp(min=1))
    return (loss_BHW * factor_BHW).sum()


def cross_entropy_ignore(logits_BKhw: Tensor, label_BHW: Tensor) -> Tensor:
    """Mean cross-entropy over labelled pixels of the group: scalar, nats; 0 where every pixel is 255."""
    loss_BHW = _pixel_cross_entropy(logits_BKhw, label_BHW)
    return loss_BHW.sum() / (label_BHW != IGNORE).sum().clamp(min=1)


def unlabelled_share(label_BHW: Tensor) -> Tensor:
    """Share of a group's crops without a labelled pixel: scalar in [0,1] (agmm.md 6: points and small crops)."""
    return (label_BHW == IGNORE).flatten(1).all(1).float().mean()
