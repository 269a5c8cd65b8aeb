"""AGMM's losses beside partial cross-entropy (agmm.md 2.4).

Axes: B images, K labels, k classes that an image has labels of, D channels, H W pixels. Means over pixels run over the
whole group. 255 (or any value outside 0..K-1) is unlabelled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.parts.ops.cam import gather_classes, present_classes
from methods.parts.tensors import full_precision

EPS = 1e-6
DETACH = ("none", "g", "p")


def class_loss(logits_BKHW: Tensor, tags_BK: Tensor, content_BHW: Tensor) -> Tensor:
    """L_cls: labels that the whole image lacks are unlikely at every real pixel; scalar, nats (agmm.md 2.4).

    `tags_BK` in {0,1}, with background, of the image before it was cropped. 0 where no pixel is real.
    """
    return class_loss_of(logits_BKHW.float().log_softmax(1), tags_BK, content_BHW)


def class_loss_of(log_probs_BKHW: Tensor, tags_BK: Tensor, content_BHW: Tensor) -> Tensor:
    """As `class_loss`, from float32 log-probabilities, which the other losses read too."""
    with full_precision(log_probs_BKHW):
        return _Unlikely.apply(log_probs_BKHW, 1.0 - tags_BK.float(), content_BHW.bool())


class _Unlikely(torch.autograd.Function):
    """Mean over real pixels of the sum over `absent_BK` of -log(1 - P + eps).

    With its own gradient it keeps the log-probabilities alone, which are there anyhow; autograd would keep three maps.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, log_probs: Tensor, absent: Tensor, content: Tensor) -> Tensor:
        ctx.save_for_backward(log_probs, absent, content)
        cost_BKHW = log_probs.exp().neg_().add_(1.0 + EPS).log_()
        cost_BHW = torch.einsum("bkhw,bk->bhw", cost_BKHW, absent)
        return -(cost_BHW * content).sum() / content.sum().clamp(min=1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        log_probs, absent, content = ctx.saved_tensors  # type: ignore[attr-defined]
        scale_B1HW = (content * (grads[0] / content.sum().clamp(min=1)))[:, None]
        # d/d(log P) of -log(1 - P + eps) is P / (1 - P + eps) = (1 + eps) / (1 - P + eps) - 1.
        slope_BKHW = log_probs.exp().neg_().add_(1.0 + EPS).reciprocal_().mul_(1.0 + EPS).sub_(1.0)
        return slope_BKHW.mul_(absent[:, :, None, None]).mul_(scale_B1HW), None, None


def gmm_losses(
    logits_BKHW: Tensor,
    gaussian_BKHW: Tensor,
    label_BHW: Tensor,
    presence_BK: Tensor,
    content_BHW: Tensor,
    *,
    detach: str | None = None,
) -> tuple[Tensor, Tensor]:
    """L_1, the Gaussian maps against the prediction at real pixels, and L_2, the labels against the maps; nats.

    Both are soft binary cross-entropies over the classes that the crop has labels of. `detach`: g or p stops L_1's
    gradient to the maps or to the prediction. 0 where there is no such pixel. Raises ValueError for another `detach`.
    """
    index_Bk, real_Bk, _ = present_classes(presence_BK)
    return present_gmm_losses(
        present_probs(logits_BKHW.float().log_softmax(1), index_Bk),
        gather_classes(gaussian_BKHW, index_Bk),
        label_BHW,
        index_Bk,
        real_Bk,
        content_BHW,
        labelled_BHW=(label_BHW >= 0) & (label_BHW < presence_BK.shape[1]),
        detach=detach,
    )


def present_probs(log_probs_BKHW: Tensor, index_Bk: Tensor) -> Tensor:
    """Probabilities (B,k,H,W) of the labels in `index_Bk`, from log-probabilities over all K."""
    return gather_classes(log_probs_BKHW, index_Bk).exp()


def present_gmm_losses(
    probs_BkHW: Tensor,
    gaussian_BkHW: Tensor,
    label_BHW: Tensor,
    index_Bk: Tensor,
    real_Bk: Tensor,
    content_BHW: Tensor,
    *,
    labelled_BHW: Tensor,
    detach: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `gmm_losses`, for the classes of `present_classes` alone."""
    if (detach or "none") not in DETACH:
        raise ValueError(f"detach {detach!r}, one of {', '.join(DETACH)} expected")
    with full_precision(probs_BkHW):
        share_Bk = real_Bk / (real_Bk.sum(1, keepdim=True) + EPS)
        target_BkHW = gaussian_BkHW.detach() if detach == "g" else gaussian_BkHW
        guess_BkHW = probs_BkHW.detach() if detach == "p" else probs_BkHW
        both_BkHW = target_BkHW * (guess_BkHW + EPS).log() + (1.0 - target_BkHW) * (1.0 - guess_BkHW + EPS).log()
        hit_BkHW = label_BHW[:, None] == index_Bk[:, :, None, None]
        right_BkHW = torch.where(hit_BkHW, gaussian_BkHW, 1.0 - gaussian_BkHW)
        return (
            -0.5 * _mean_over(both_BkHW, share_Bk, content_BHW),
            -0.5 * _mean_over((right_BkHW + EPS).log(), share_Bk, labelled_BHW),
        )


def _mean_over(maps_BkHW: Tensor, share_Bk: Tensor, at_BHW: Tensor) -> Tensor:
    """Weighted sum over classes, then the mean over the pixels of `at_BHW`; 0 where there are none."""
    return (torch.einsum("bkhw,bk->bhw", maps_BkHW, share_Bk) * at_BHW).sum() / at_BHW.sum().clamp(min=1)


def separation_loss(centroids_BKD: Tensor, presence_BK: Tensor, *, pool: str = "mean") -> Tensor:
    """L_sep: mean over pairs of classes of exp(-D^2), D the mean absolute difference of their vectors; in [0,1].

    A class's vector is the mean of its centres over the images that have it, or with `pool` sum, as published, their
    sum (agmm.md 7.1). 0 where the group has less than two classes. Raises ValueError for another `pool`.
    """
    if pool not in ("mean", "sum"):
        raise ValueError(f"pool {pool!r}, mean or sum expected")
    with full_precision(centroids_BKD):
        seen_BK = presence_BK.float()
        vectors_KD = torch.einsum("bkd,bk->kd", centroids_BKD.float(), seen_BK)
        if pool == "mean":
            vectors_KD = vectors_KD / seen_BK.sum(0).clamp(min=1.0)[:, None]
        here_K = seen_BK.amax(0)
        pairs_KK = torch.triu(here_K[:, None] * here_K[None], diagonal=1)
        apart_KK = torch.cdist(vectors_KD, vectors_KD, p=1.0) / vectors_KD.shape[1]
        return ((-apart_KK.square()).exp() * pairs_KK).sum() / (pairs_KK.sum() + EPS)
