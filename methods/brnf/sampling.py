"""Features sampled from the class densities of a flow (brnf.md 2.7).

Axes: K labels, M draws, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.brnf.density import class_likelihood
from methods.brnf.flow import Flow
from methods.parts.tensors import at_slots


@torch.no_grad()
def sample_features(flow: Flow, means_KD: Tensor, eps_KMD: Tensor, t: float, keep: int) -> tuple[Tensor, Tensor]:
    """The `keep` most likely of M features per class, of unit length (K,keep,D), and their scores (K,keep), nats,
    falling (brnf.md 2.7).

    Latents mean + `t` eps with standard normal `eps_KMD`, inverted; the score is the likelihood of the inverted vector
    under its class. Draws that are not finite, or lie nearer to another class, come last: score -inf, and zeros where
    not finite. Raises ValueError for `keep` > M.
    """
    classes, draws, dim = eps_KMD.shape
    if keep > draws:
        raise ValueError(f"{keep} of {draws} draws cannot be kept: draw more")
    z_ND = (means_KD[:, None] + t * eps_KMD).reshape(-1, dim)
    a_ND, logdet_N = flow.inverse(z_ND)
    likelihood_NK = class_likelihood(z_ND, -logdet_N, means_KD)
    class_N = torch.arange(classes, device=z_ND.device).repeat_interleave(draws)
    score_N = likelihood_NK.gather(1, class_N[:, None])[:, 0]
    finite_N = a_ND.isfinite().all(dim=1) & likelihood_NK.isfinite().all(dim=1)
    usable_N = finite_N & (likelihood_NK.argmax(dim=1) == class_N)
    unit_KMD = F.normalize(a_ND.masked_fill(~finite_N[:, None], 0.0), dim=1).view(classes, draws, dim)
    best_Kk, index_Kk = score_N.masked_fill(~usable_N, -torch.inf).view(classes, draws).topk(keep, dim=1)
    return at_slots(unit_KMD, index_Kk), best_Kk


def density_weights(score_KM: Tensor, dim: int, temperature: float = 0.05) -> Tensor:
    """Weights (K,M) of sampled bank entries: softmax of score / (dim temperature), times their number (brnf.md 2.7).

    The mean of a class is 1. Rejected draws (score -inf) get 0 and do not count.
    """
    rejected_KM = score_KM == -torch.inf
    shares_KM = (score_KM / (dim * temperature)).softmax(dim=1).masked_fill(rejected_KM, 0.0)
    return shares_KM * (~rejected_KM).sum(dim=1, keepdim=True)
