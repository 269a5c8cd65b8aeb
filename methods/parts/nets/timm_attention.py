"""timm's attention written out, for those who read its maps and for devices on which its fused kernel is slow.

Axes: B images, H heads, N tokens, D channels, d channels of a head.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from timm.layers import Attention
from torch import Tensor, nn


def explicit_attention(attention: Attention, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """timm's attention without its fused kernel: output (B,N,D), logits and probabilities (B,H,N,N), differentiable."""
    q, k, v = _queries(attention, x_BND)
    logits_BHNN = (q * attention.scale) @ k.transpose(-2, -1)
    probabilities_BHNN = logits_BHNN.softmax(dim=-1)
    return _projected(attention, attention.attn_drop(probabilities_BHNN) @ v, x_BND), logits_BHNN, probabilities_BHNN


def attention_by_image(attention: Attention, x_BND: Tensor) -> Tensor:
    """timm's attention (B,N,D) without its fused kernel and without a gradient: a CPU's cache holds the logits of one
    image, not those of all."""
    q, k, v = _queries(attention, x_BND)
    mixed = []
    for q_HNd, k_HNd, v_HNd in zip(q, k, v, strict=True):
        probabilities_HNN = ((q_HNd * attention.scale) @ k_HNd.mT).softmax(dim=-1)
        mixed.append(attention.attn_drop(probabilities_HNN) @ v_HNd)
    return _projected(attention, torch.stack(mixed), x_BND)


def faster_by_image(attention: nn.Module, x_BND: Tensor) -> TypeGuard[Attention]:
    """Whether `attention_by_image` does what this module does, and faster: in bfloat16 on a CPU PyTorch's fused kernel
    takes longer than in float32, where products of matrices take half as long."""
    if torch.is_grad_enabled() or x_BND.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return type(attention) is Attention


def _queries(attention: Attention, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B,H,N,D/H)."""
    b, n, _ = x_BND.shape
    q, k, v = attention.qkv(x_BND).view(b, n, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    return attention.q_norm(q), attention.k_norm(k), v


def _projected(attention: Attention, mixed_BHNd: Tensor, x_BND: Tensor) -> Tensor:
    """What timm's attention makes of its heads' mixed values: (B,N,D)."""
    mixed_BND = attention.norm(mixed_BHNd.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        mixed_BND = mixed_BND * attention.gate(x_BND).sigmoid()
    return attention.proj_drop(attention.proj(mixed_BND))
