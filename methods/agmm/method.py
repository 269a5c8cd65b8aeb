"""`agmm`: one training step of agmm.md section 2.

Axes: B images, K labels, k classes that an image has labels of, D channels, H W pixels, h w cells of the decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.agmm.config import AgmmConfig
from methods.agmm.gaussian import EPS, centroids, presence_of, present_gaussian
from methods.agmm.losses import class_loss_of, present_gmm_losses, present_probs, separation_loss
from methods.parts.bases.sparse import SparseSegmenter
from methods.parts.ops.cam import present_classes
from methods.parts.tensors import at_slots
from methods.parts.views.sparse_views import TAGS, SparseViews


@dataclass(frozen=True)
class Labelled:
    """What a group's crops are labelled with."""

    label_BHW: Tensor
    content_BHW: Tensor
    presence_BK: Tensor
    index_Bk: Tensor
    real_Bk: Tensor


class Agmm(SparseSegmenter):
    """AGMM. Loss terms: `seg`, `cls`, `gmm_self` (L_1) from its start on, `gmm_label` (L_2), `sep`."""

    config: AgmmConfig
    bank_KD: Tensor
    """Moving average of the centres; with pooling ema only."""
    banked_K: Tensor
    """1 for classes that have been seen."""

    def __init__(self, config: AgmmConfig, info: BuildInfo):
        super().__init__(config, info)
        self.log_sharpness = None
        if config.variance == "learned":
            start = torch.full((info.num_labels,), float(config.sharpness)).log()
            self.log_sharpness = nn.Parameter(start)
        if config.pooling == "ema":
            width = self.net.width
            self.register_buffer("bank_KD", torch.zeros(info.num_labels, width))
            self.register_buffer("banked_K", torch.zeros(info.num_labels))

    def transform(self) -> SparseViews:
        """The views of agmm.md 2.1, with the labels of the whole image."""
        return dataclasses.replace(super().transform(), num_labels=self.info.num_labels)

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config = self.config
        label_BHW, content_BHW = self.labels_of(group)
        features_BDhw, logits_BKhw = self.net.maps(group.views["view1"])
        log_probs_BKHW = self.at_size(logits_BKhw.float(), label_BHW.shape[-2:]).log_softmax(1)
        losses = {"seg": self.partial_cross_entropy(log_probs_BKHW, label_BHW)}
        stats: dict[str, Tensor] = {}
        if config.w_cls > 0:
            losses["cls"] = config.w_cls * class_loss_of(log_probs_BKHW, self.tags_of(group), content_BHW)
        if config.w_gmm > 0 or config.w_sep > 0:
            presence_BK = presence_of(label_BHW, self.info.num_labels)
            extents = group.extents
            index_Bk, real_Bk, _ = present_classes(presence_BK, None if extents is None else extents.values)
            found = Labelled(label_BHW, content_BHW, presence_BK, index_Bk, real_Bk)
            own_BKD = centroids(
                features_BDhw, label_BHW, self.info.num_labels, align_corners=self.corners, extents=extents
            )
            if config.w_gmm > 0:
                centre_BKD = self.pooled(own_BKD, presence_BK, stats)
                losses |= self.mixture(features_BDhw, centre_BKD, log_probs_BKHW, found, progress)
            if config.w_sep > 0:
                losses["sep"] = config.w_sep * separation_loss(own_BKD, presence_BK, pool=config.sep_pool)
        return self.output(losses, label_BHW, stats)

    def tags_of(self, group: Batch) -> Tensor:
        """The labels (B,K) in {0,1}, background included, that the images have before they are cropped.

        Of their sparse labels (agmm.md 2.1); tags, which masks may stand behind, where a batch was made by other views.
        """
        if TAGS in group.extra:
            return group.extra[TAGS]
        if group.tags_BK is not None:
            return group.tags_BK
        assert group.label_BHW is not None
        first = int(self.info.has_background)
        held_BK = presence_of(group.label_BHW, self.info.num_labels)
        held_BK[:, first:] = torch.maximum(held_BK[:, first:], group.tags_BC)
        return held_BK

    @property
    def corners(self) -> bool:
        """Whether centres, content and Gaussian maps are resized with aligned corners (agmm.md 7.2)."""
        return self.config.align_corners and not self.config.literal_corners

    def mixture(
        self, features_BDhw: Tensor, centre_BKD: Tensor, log_probs_BKHW: Tensor, found: Labelled, progress: Progress
    ) -> dict[str, Tensor]:
        """The two losses of the Gaussian maps (agmm.md 2.3, 2.4), on each image's own classes."""
        config, index_Bk = self.config, found.index_Bk
        probs_BkHW = present_probs(log_probs_BKHW, index_Bk)
        sharpness: float | Tensor = config.sharpness
        if self.log_sharpness is not None:
            sharpness = self.log_sharpness.exp()[index_Bk]
        maps_BkHW = present_gaussian(
            features_BDhw,
            at_slots(centre_BKD, index_Bk),
            found.real_Bk,
            found.content_BHW,
            variance=config.variance,
            sharpness=sharpness,
            probs_BkHW=probs_BkHW,
            distance=config.distance,
            align_corners=self.corners,
        )
        first, second = present_gmm_losses(
            probs_BkHW,
            maps_BkHW,
            found.label_BHW,
            index_Bk,
            found.real_Bk,
            found.content_BHW,
            labelled_BHW=found.label_BHW < self.info.num_labels,
            detach=config.detach,
        )
        losses = {}
        if (weight := config.w_gmm * config.w_1 * self.rise(progress)) > 0:
            losses["gmm_self"] = weight * first
        if (weight := config.w_gmm * config.w_2) > 0:
            losses["gmm_label"] = weight * second
        return losses

    def rise(self, progress: Progress) -> float:
        """Factor of L_1 in [0,1]: 0 before its start, 1 after its ramp."""
        since = progress.fraction - self.config.l1_start
        if since < 0:
            return 0.0
        return min(1.0, since / self.config.l1_ramp) if self.config.l1_ramp > 0 else 1.0

    def pooled(self, own_BKD: Tensor, presence_BK: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """Centres (B,K,D) that the maps are drawn around: each image's own, or the group's, or the moving average."""
        if self.config.pooling == "image":
            return own_BKD
        sum_KD, count_K = (own_BKD * presence_BK[..., None]).sum(0), presence_BK.sum(0)
        mean_KD = sum_KD / count_K.clamp(min=1.0)[:, None]
        if self.config.pooling == "ema":
            stats |= {"centre_sum": sum_KD.detach(), "centre_count": count_K}
            kept_K1 = self.config.bank_momentum * self.banked_K[:, None]
            mean_KD = kept_K1 * self.bank_KD + (1.0 - kept_K1) * mean_KD
        return mean_KD.expand_as(own_BKD)

    @torch.no_grad()
    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """Running statistics of batch norm, and the moving average of centres of the classes that were seen."""
        self.absorb(stats)
        if "centre_sum" in stats:
            count_K = stats["centre_count"]
            mean_KD = stats["centre_sum"] / count_K.clamp(min=EPS)[:, None]
            kept_K1 = torch.where(count_K > 0, self.config.bank_momentum * self.banked_K, 1.0)[:, None]
            self.bank_KD.copy_(kept_K1 * self.bank_KD + (1.0 - kept_K1) * mean_KD)
            self.banked_K.copy_(torch.maximum(self.banked_K, (count_K > 0).float()))


def build(config: AgmmConfig, info: BuildInfo) -> Agmm:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Agmm(config, info)
