"""UniA's distribution loss and the sampling before it (unia.md 2.2, 2.6). B images, N tokens, D channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.ops.cam import resize
from methods.parts.ops.refinement import confident


def sampled_map(mean_BND: Tensor, log_var_BND: Tensor, samples: int, noise_BND: Tensor | None = None) -> Tensor:
    """Channel mean (B,N) of the mean of `samples` draws mean + exp(log_var/2) eps, float32 (unia.md 2.2 step 8).

    The mean of T standard normals is one normal over sqrt(T), so one draw has the law of T draws, gradients included.
    `noise_BND` replaces the draw: the mean of T draws times sqrt(T).
    """
    mean, deviation = mean_BND.float(), (0.5 * log_var_BND.float()).exp()
    noise = torch.randn_like(deviation) if noise_BND is None else noise_BND
    return mean.mean(dim=2) + (deviation * noise).mean(dim=2) / math.sqrt(samples)


def confident_map(label_BHW: Tensor, hw: tuple[int, int]) -> Tensor:
    """Share of confident foreground (B,N) in [0,1]: classes 1, background and 255 0, bilinear at token size
    (unia.md 2.6 t)."""
    return resize(confident(label_BHW)[:, None].float(), hw).flatten(1)


def distribution_loss(map_BN: Tensor, target_BN: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(map)) over the tokens, mean over images: scalar, nats (unia.md 2.6 L_kl)."""
    log_target_BN = target_BN.float().log_softmax(dim=1)
    gap_BN = log_target_BN - map_BN.float().log_softmax(dim=1)
    return (log_target_BN.exp() * gap_BN).sum(dim=1).mean()


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0,1)) per element, nats (unia.md 2.8 h)."""
    return 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var)


def gaussian_prior_loss(mean_BND: Tensor, log_var_BND: Tensor) -> Tensor:
    """`gaussian_kl` of unit-length tokens summed over channels; sum over tokens, mean over images (unia.md 2.8 h)."""
    mean_BN, log_var_BN = (F.normalize(x.float(), dim=2, eps=1e-8).sum(dim=2) for x in (mean_BND, log_var_BND))
    return gaussian_kl(mean_BN, log_var_BN).sum(dim=1).mean()
