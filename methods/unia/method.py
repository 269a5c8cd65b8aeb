"""`unia`: one training step of unia.md section 2.

Axes: B images, C classes, H W pixels, N = h x w tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.api import fitting
from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from methods.parts.bases.aux_segmenter import PowerAuxSegmenter
from methods.parts.bases.together import Drawn, DrawnTogether, StepsTogether
from methods.parts.nets.backbones import Encoder
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.depth import draw_depth
from methods.parts.nets.vit_segmenter import pooled_logits
from methods.parts.ops.affinity import affinity_pairs, contrastive_affinity_loss, radius_mask
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.pixels import denormalise
from methods.unia.config import UniaConfig
from methods.unia.labels import Labels, Routing, routing, token_labels, top_labels
from methods.unia.losses import confident_map, distribution_loss, gaussian_prior_loss, sampled_map
from methods.unia.model import Tokens, UniaNet
from methods.unia.uncertainty import UncertaintyInference


@dataclass(frozen=True)
class Read:
    """What is made image by image, as far as a term reads it."""

    tokens: Tokens
    top_BC: Tensor | None
    aux_BC: Tensor | None
    """Class logits of both classifiers."""
    labels: Labels


class Unia(StepsTogether, PowerAuxSegmenter):
    """UniA. Loss terms: `cls`, `aux`, `kl`, and from their starts on `ptc`, `aff`, `seg`, `reg`."""

    config: UniaConfig
    net: UniaNet

    def network(self, encoder: Encoder) -> UniaNet:
        """The network with module, heads and cells fitted to the encoder."""
        config, info = self.config, self.info
        module = None
        if config.uncertainty:
            module = UncertaintyInference(
                encoder.dim,
                inner=config.uncertainty_width,
                hidden=config.uncertainty_hidden,
                bottleneck=config.uncertainty_bottleneck,
                pool=fitting.tokens(config.pooling_size, info.crop // encoder.stride),
                separate_mean_head=config.separate_mu_head,
            )
        net = UniaNet(
            encoder,
            **self.sizes(encoder),
            uncertainty=module,
            attention_logits=config.aff_source == "logits",
        )
        if config.freeze_aff_bias:
            net.affinity.freeze_bias()
        return net

    @property
    def radius(self) -> int:
        """Reach of affinity pairs in tokens of this run's grid."""
        return fitting.tokens(self.config.radius, self.info.crop // self.net.encoder.stride)

    def draw(self, group: Batch, progress: Progress) -> Drawn:
        """Stochastic depth; the sampled map draws in its loss."""
        return Drawn(depth={"view1": draw_depth(self.net.encoder, len(group.tags_BC), group.tags_BC)})

    def read(self, batch: Batch, progress: Progress, drawn: DrawnTogether) -> Read:
        """Tokens, class logits and label maps of all images."""
        net, route = self.net, routing(self.config, progress)
        with_mean, depth_LB = "kl" in route.terms, drawn.depth.get("view1")
        tokens = net.read(batch.views["view1"], with_affinity=route.affinity, with_mean=with_mean, depth_LB=depth_LB)
        top_BC = pooled_logits(net.top, tokens.top_BND) if "cls" in route.terms else None
        aux_BC = pooled_logits(net.classifier_aux, tokens.aux_BND) if "aux" in route.terms else None
        return Read(tokens, top_BC, aux_BC, self.labels(batch, tokens, route))

    def losses(self, group: Batch, read: Read, progress: Progress) -> StepOutput:
        """Losses of one group."""
        route = routing(self.config, progress)
        terms, tokens, labels = route.terms, read.tokens, read.labels
        losses: dict[str, Tensor] = {}
        if read.top_BC is not None:
            losses["cls"] = multilabel_soft_margin(read.top_BC, group.tags_BC)
        if read.aux_BC is not None:
            losses["aux"] = multilabel_soft_margin(read.aux_BC, group.tags_BC)
        if "kl" in terms:
            label = labels.mcr_BHW if "kl" in route.mcr else labels.aux_Bhw
            losses["kl"] = self.distribution(tokens, label)
        if "ptc" in terms:
            assert labels.aux_Bhw is not None
            losses["ptc"] = self.token_contrast(tokens, labels.aux_Bhw)
        if "aff" in terms:
            losses["aff"] = self.affinity_contrast(tokens, labels, refined="aff" in route.mcr)
        if terms & {"seg", "reg"}:
            refined = bool(route.mcr & {"seg", "reg"})
            label_BHW = labels.mcr_BHW if refined else labels.par_BHW
            assert label_BHW is not None
            label_BHW = self.segmentation_ids(label_BHW)
            losses |= self.decode(tokens, group.views["view1"], label_BHW, group, terms)
        return StepOutput(self.weighted(losses, {"aff": self.net.affinity}), take_stats(self.net))

    @torch.no_grad()
    def labels(self, group: Batch, tokens: Tokens, route: Routing) -> Labels:
        """The label maps that the active terms read (unia.md 2.5)."""
        if not (route.aux or route.top):
            return Labels()
        images = group.views["view1"]
        present = self.present(group)
        aux_BCHW, top_BCHW = self.cams(images, present, tokens, with_top=route.top)
        aux_Bhw = self.aux_labels(aux_BCHW, present, group.content_BHW, tokens.hw) if route.aux else None
        if top_BCHW is None:
            return Labels(aux_Bhw)
        return top_labels(
            self.config,
            route,
            aux_Bhw=aux_Bhw,
            top_BCHW=top_BCHW,
            tags_BC=present,
            pixels_B3HW=denormalise(images, *self.normalisation()),
            affinity_BNN=tokens.affinity_BNN,
            hw=tokens.hw,
            content_BHW=group.content_BHW,
        )

    def distribution(self, tokens: Tokens, label_BHW: Tensor | None) -> Tensor:
        """L_kl of the sampled map, with its share of the Gaussian prior (unia.md 2.6, 2.8 h)."""
        mean_BND, log_var_BND, share = tokens.mean_BND, tokens.log_var_BND, self.config.w_gauss
        assert mean_BND is not None
        assert log_var_BND is not None
        assert label_BHW is not None
        map_BN = sampled_map(mean_BND, log_var_BND, self.config.n_samples)
        loss = distribution_loss(map_BN, confident_map(label_BHW, tokens.hw))
        return (1.0 - share) * loss + share * gaussian_prior_loss(mean_BND, log_var_BND) if share else loss

    def affinity_contrast(self, tokens: Tokens, labels: Labels, *, refined: bool) -> Tensor:
        """L_aff on the attention's affinity (unia.md 2.6; over the batch: 2.8 e)."""
        label_Bhw = labels.aux_Bhw
        if refined:
            assert labels.mcr_BHW is not None
            label_Bhw = token_labels(labels.mcr_BHW, tokens.hw, bilinear=self.config.bilinear_label_ids)
        affinity_BNN = tokens.affinity_BNN
        assert affinity_BNN is not None
        assert label_Bhw is not None
        near_NN = radius_mask(tokens.hw, self.radius, device=affinity_BNN.device)
        pairs_BNN = affinity_pairs(self.token_ids(label_Bhw), near_NN)
        loss = contrastive_affinity_loss(affinity_BNN, pairs_BNN, self.config.aff_temperature)
        return loss * self.config.aff_over_batch / len(affinity_BNN) if self.config.aff_over_batch else loss

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        module = self.net.uncertainty
        return {
            **super().describe(),
            "affinity_blocks": list(self.net.affinity_blocks),
            "radius": self.radius,
            "pooling_cell": module.pool if module else None,
            "uncertainty": [
                self.config.uncertainty_width,
                self.config.uncertainty_hidden,
                self.config.uncertainty_bottleneck,
            ],
        }


def build(config: UniaConfig, info: BuildInfo) -> Unia:
    """The method on its backbone. Raises BadInput where backbone, weights, crop or decoder do not fit."""
    return Unia(config, info)
