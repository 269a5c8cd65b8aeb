"""Class mixture in the latent space of a flow: likelihood, labels that it learns from, loss, classifier (brnf.md 2.3,
2.4).

Axes: B images, K labels (background at 0), N pixels, D latent coordinates, h w the grid of features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.api.vocabulary import IGNORE
from methods.parts.tensors import full_precision

TIE = 1e-6
"""A score that lies below its limit by round-off alone has reached it."""


def squared_distances(z_ND: Tensor, means_KD: Tensor) -> Tensor:
    """||z - mean||^2 of every pixel and class: (N,K), at least float32.

    As products of matrices, around the means' centre: the direct form needs N K D numbers at a time.
    """
    with full_precision(z_ND):
        dtype = torch.promote_types(z_ND.dtype, torch.float32)
        means = means_KD.to(dtype)
        centre_D = means.detach().mean(dim=0)
        z, means = z_ND.to(dtype) - centre_D, means - centre_D
        # The derivative of a square is a power of one: a product has none.
        return (z * z).sum(dim=-1, keepdim=True) - z @ (2.0 * means.T) + (means * means).sum(dim=-1)


def class_likelihood(z_ND: Tensor, logdet_N: Tensor, means_KD: Tensor, log_weights_K: Tensor | None = None) -> Tensor:
    """log N(z; mean_k, I) + log|det J|, plus the log-weight of the class where given: (N,K), nats (brnf.md 2.3).

    The density of the flow's input under each class, per vector; divide by D for nats per dimension.
    """
    squared_NK = squared_distances(z_ND, means_KD)
    normaliser = 0.5 * z_ND.shape[-1] * math.log(2.0 * math.pi)
    likelihood_NK = logdet_N.to(squared_NK.dtype)[:, None] - 0.5 * squared_NK - normaliser
    return likelihood_NK if log_weights_K is None else likelihood_NK + log_weights_K


@torch.no_grad()
def confident_labels(proto_BKhw: Tensor, present_BK: Tensor, tau: float, margin: float) -> Tensor:
    """Label values int64 (B,h,w): the best present class where it reaches `tau` and leads the second by `margin`, else
    255 (brnf.md 2.3).

    `proto_BKhw` in [0,1]; `present_BK` holds background too. A class alone in its image leads; none present is 255.
    Equal scores go to the lower label.
    """
    scores_BKhw = proto_BKhw.float().masked_fill(~present_BK.bool()[:, :, None, None], -torch.inf)
    best_Bhw, second_Bhw = scores_BKhw.topk(2, dim=1).values.unbind(dim=1)
    sure_Bhw = (best_Bhw >= tau - TIE) & (best_Bhw >= second_Bhw + margin - TIE) & best_Bhw.isfinite()
    # Of equal scores topk names any.
    return scores_BKhw.argmax(dim=1).masked_fill(~sure_Bhw, IGNORE)


def flow_loss(likelihood_NK: Tensor, label_N: Tensor, present_NK: Tensor) -> Tensor:
    """L_f: minus the mean log-likelihood, of the label's class, or of equal shares of all present ones where it is 255:
    scalar, nats per vector (brnf.md 2.3).

    Vectors labelled 255 in whose image nothing is present are left out; without any vector the loss is 0.
    """
    present_NK = present_NK.bool()
    count_N = present_NK.sum(dim=1)
    labelled_N = label_N != IGNORE
    own_N = likelihood_NK.gather(1, torch.where(labelled_N, label_N, 0)[:, None])[:, 0]
    mixed_N = likelihood_NK.masked_fill(~present_NK, -torch.inf).logsumexp(dim=1) - count_N.log()
    used_N = labelled_N | (count_N > 0)
    total = torch.where(labelled_N, own_N, mixed_N).masked_fill(~used_N, 0.0).sum()
    return -total / used_N.sum().clamp(min=1)


def class_posterior(
    z_ND: Tensor,
    means_KD: Tensor,
    present_NK: Tensor,
    temperature: float | None = None,
    log_weights_K: Tensor | None = None,
) -> Tensor:
    """The GMM classifier: softmax over present classes of -||z - mean||^2 / (2 temperature), plus the log-weight of the
    class where given: (N,K) (brnf.md 2.4).

    Absent classes are 0, and all are where none is present. `temperature` 1 is the exact posterior; None is D/20,
    at which distances of order D leave it soft.
    """
    spread = z_ND.shape[-1] / 20.0 if temperature is None else temperature
    absent_NK = ~present_NK.bool()
    logits_NK = squared_distances(z_ND, means_KD) / (-2.0 * spread)
    logits_NK = logits_NK if log_weights_K is None else logits_NK + log_weights_K
    return logits_NK.masked_fill(absent_NK, -torch.inf).softmax(dim=1).masked_fill(absent_NK, 0.0)
