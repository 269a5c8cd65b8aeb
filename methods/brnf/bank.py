"""The memory bank: region features that images leave, and features sampled from the class densities (brnf.md 2.7).

Axes: B images, K labels (background at 0), S places of a class, D features, h w cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.brnf.densities import Density, scaled
from methods.brnf.density import confident_labels
from methods.brnf.knobs import BrnfConfig
from methods.brnf.losses import bank_contrast
from methods.brnf.pixels import one_hot
from methods.brnf.sampling import density_weights, sample_features
from methods.parts.tensors import at_slots, full_precision, true_slots


class Bank(nn.Module):
    """For each class a queue of region features, first in, first out, and sampled ones; all of unit length, in buffers,
    so that checkpoints hold them."""

    region_KSD: Tensor
    filled_K: Tensor
    next_K: Tensor
    aug_KSD: Tensor
    aug_weight_KS: Tensor
    accuracy: Tensor
    """Share of the queued regions that f1 takes for their own class, when samples were last drawn."""

    def __init__(self, config: BrnfConfig, labels: int, dim: int):
        super().__init__()
        self.config = config
        self.register_buffer("region_KSD", torch.zeros(labels, config.n_reg, dim))
        self.register_buffer("filled_K", torch.zeros(labels, dtype=torch.int64))
        self.register_buffer("next_K", torch.zeros(labels, dtype=torch.int64))
        self.register_buffer("aug_KSD", torch.zeros(labels, config.n_aug, dim))
        self.register_buffer("aug_weight_KS", torch.zeros(labels, config.n_aug))
        self.register_buffer("accuracy", torch.zeros(()))

    @torch.no_grad()
    def push(self, feature_BKD: Tensor, valid_BK: Tensor) -> None:
        """Queue the valid ones among unit features, in the order of images; of more than a queue holds the last."""
        places = self.region_KSD.shape[1]
        valid_BK = valid_BK > 0
        count_K = valid_BK.sum(dim=0)
        position_BK = valid_BK.cumsum(dim=0) - 1
        stays_BK = valid_BK & (position_BK >= count_K - places)
        # A place behind the queue takes what does not stay: shapes never depend on the data.
        place_BK = torch.where(stays_BK, (self.next_K + position_BK) % places, places)
        wide_KSD = torch.cat([self.region_KSD, torch.zeros_like(self.region_KSD[:, :1])], dim=1)
        index_KBD = place_BK.T[:, :, None].expand(-1, -1, wide_KSD.shape[2])
        wide_KSD.scatter_(1, index_KBD, feature_BKD.to(wide_KSD.dtype).transpose(0, 1))
        self.region_KSD.copy_(wide_KSD[:, :places])
        self.next_K.copy_((self.next_K + count_K) % places)
        self.filled_K.copy_((self.filled_K + count_K).clamp(max=places))

    def region_weights(self) -> Tensor:
        """1.0 at filled places of the queues, else 0: (K,S)."""
        places = torch.arange(self.region_KSD.shape[1], device=self.filled_K.device)
        return (places < self.filled_K[:, None]).to(self.region_KSD.dtype)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Unit features (K+1,S,D) and weights (K+1,S), 0 for empty places. The last row is empty: anchors that are
        none carry its label."""
        feature_KSD = torch.cat([self.region_KSD, self.aug_KSD], dim=1)
        weight_KS = torch.cat([self.region_weights(), self.aug_weight_KS], dim=1)
        if not self.config.bank_background:
            weight_KS = torch.cat([torch.zeros_like(weight_KS[:1]), weight_KS[1:]])
        empty_KSD, empty_KS = torch.zeros_like(feature_KSD[:1]), torch.zeros_like(weight_KS[:1])
        return torch.cat([feature_KSD, empty_KSD]), torch.cat([weight_KS, empty_KS])

    def contrast(self, region_BKD: Tensor, valid_BK: Tensor, most: int | None = None) -> Tensor:
        """L_nce of the valid regions of foreground classes: scalar, nats. `most` is how many of them an image has at
        most, where the host knows it (`Batch.extents`)."""
        feature_KSD, weight_KS = self.entries()
        slot_Bk, real_Bk = true_slots(valid_BK[:, 1:], most)
        label_Bk = torch.where(real_Bk, slot_Bk + 1, len(weight_KS) - 1)
        anchor_BkD = at_slots(region_BKD, slot_Bk + 1)
        return bank_contrast(anchor_BkD.flatten(0, 1), label_Bk.flatten(), feature_KSD, weight_KS, self.config.nce_tau)

    @torch.no_grad()
    def draw(self, f1: Density, seed: int) -> None:
        """Replace the samples by new ones of every class that does not wait, and ask f1 about the queues.

        A generator of its own: every worker draws the same.
        """
        config, density, labels = self.config, f1.density, f1.labels
        of_each = -(-config.n_aug // density.components)
        rng = torch.Generator().manual_seed(seed)
        eps = torch.randn(len(density.mean_KD), config.draws * of_each, f1.dim, generator=rng)
        found, score = sample_features(
            density.flow, density.mean_KD, eps.to(density.mean_KD.device), config.sample_t, of_each
        )
        score_KS, best_KS = score.view(labels, -1).topk(config.n_aug, dim=1)
        found_KSD = at_slots(found.view(labels, -1, f1.dim), best_KS)
        weight_KS = (score_KS > -torch.inf).float()
        if config.density_weighted:
            # A class whose draws are all rejected has no weights.
            weight_KS = density_weights(score_KS, f1.dim, config.t_d).nan_to_num(0.0)
        self.aug_KSD.copy_(found_KSD)
        self.aug_weight_KS.copy_(weight_KS * f1.ready_K[:, None])
        likelihood_NK = density.likelihood(*density.latent(scaled(self.region_KSD.flatten(0, 1), config)))
        own_KS = likelihood_NK.argmax(dim=1).view(labels, -1) == torch.arange(labels, device=score.device)[:, None]
        filled_KS = self.region_weights()
        self.accuracy.copy_((own_KS * filled_KS).sum() / filled_KS.sum().clamp(min=1))


def regions(
    v_BDhw: Tensor, proto_BKhw: Tensor, structural_BKhw: Tensor, valid_BKhw: Tensor, *, tau: float, least: int
) -> tuple[Tensor, Tensor]:
    """Mean feature of the pixels that each label has with a prototype score of at least `tau`, of unit length (B,K,D),
    with gradient into the features; and which labels have one: those of the image with `least` structural seeds
    (B,K) bool (brnf.md 2.7)."""
    with torch.no_grad():
        present_BK = valid_BKhw.amax((2, 3)) > 0
        label_Bhw = confident_labels(proto_BKhw, present_BK, tau, 0.0)
        told_BhwK = one_hot(label_Bhw.flatten(), valid_BKhw.shape[1]).unflatten(0, label_Bhw.shape)
        member_BKN = (told_BhwK.permute(0, 3, 1, 2) * valid_BKhw).flatten(2)
        count_BK = member_BKN.sum(dim=2)
        valid_BK = present_BK & (structural_BKhw.sum((2, 3)) >= least) & (count_BK > 0)
    with full_precision(v_BDhw):
        mean_BKD = torch.bmm(member_BKN, v_BDhw.flatten(2).transpose(1, 2)) / count_BK.clamp(min=1)[:, :, None]
        return F.normalize(mean_BKD, dim=2), valid_BK
