"""Attention maps of any ViT run, per block and head.

Axes: B images, H heads where it stands before N, N tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.parts.nets.backbones import encode
from methods.parts.nets.encoders import Encoder

VERSION = 1


def between_patches(attention_BHNN: Tensor, class_token: bool) -> Tensor:
    """The part (B,H,N,N) of patches that look at patches; `class_token`: token 0 is one, and leaves (unia.md 2.1)."""
    return attention_BHNN[:, :, 1:, 1:] if class_token else attention_BHNN


@torch.no_grad()
def attention_maps(
    encoder: Encoder, images_B3HW: Tensor, blocks: Sequence[int], *, logits: bool = False
) -> list[Tensor]:
    """Attention (B,H,N,N) of the 1-based `blocks`, in their order, for reports: no gradient, eval mode.

    Rows ask and sum to 1, unless `logits` before softmax are wanted. Token 0 is the class token where the encoder
    runs one; patches follow row by row. Raises ValueError for blocks that the encoder has not, and BadInput
    for networks whose attention cannot be read.
    """
    training = encoder.training
    encoder.eval()
    try:
        return list(encode(encoder, images_B3HW, attention=blocks, attention_logits=logits).attention)
    finally:
        encoder.train(training)
