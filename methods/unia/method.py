"""`unia`: one training step of unia.md section 2.

Axes: B images, C classes, H W pixels, N = h x w tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness import fitting
from harness.datasets.labels import IGNORE
from harness.method import Batch, BuildInfo, OptimizerPlan, Progress, StepOutput
from methods.parts.affinity import affinity_pairs, contrastive_affinity_loss, radius_mask
from methods.parts.backbones import Encoder
from methods.parts.cam import multi_scale_cam
from methods.parts.energy import dense_energy_loss
from methods.parts.losses import multilabel_soft_margin
from methods.parts.pixels import denormalise
from methods.parts.relations import ptc_loss, token_relations
from methods.parts.schedules import power_adamw
from methods.parts.single_stage import TagSegmenter
from methods.parts.vit_segmenter import mode, pooled_logits
from methods.unia.config import UniaConfig
from methods.unia.labels import Labels, Routing, label_maps, routing, token_labels
from methods.unia.losses import confident_map, distribution_loss, gaussian_prior_loss, sampled_map
from methods.unia.model import Tokens, UniaNet
from methods.unia.uncertainty import UncertaintyInference

CARD_DEPTH = 12


class Unia(TagSegmenter):
    """UniA. Loss terms: `cls`, `aux`, `kl`, and from their starts on `ptc`, `aff`, `seg`, `reg`."""

    config: UniaConfig
    net: UniaNet
    class_token = True
    cam_relu_first = False

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
            num_classes=info.num_classes,
            num_labels=info.num_labels,
            decoder=info.decoder,
            width=config.decoder_width,
            aux_block=fitting.aux_block(encoder.depth, config.aux_block, CARD_DEPTH),
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

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config, route = self.config, routing(self.config, progress)
        terms = route.terms
        images, tags_BC = group.views["view1"], group.tags_BC
        tokens = self.net.read(images, with_affinity=route.affinity, with_mean="kl" in terms)
        labels = self.labels(group, tokens, route)
        losses: dict[str, Tensor] = {}
        if "cls" in terms:
            losses["cls"] = multilabel_soft_margin(pooled_logits(self.net.top, tokens.top_BND), tags_BC)
        if "aux" in terms:
            losses["aux"] = multilabel_soft_margin(pooled_logits(self.net.classifier_aux, tokens.aux_BND), tags_BC)
        if "kl" in terms:
            label = labels.mcr_BHW if "kl" in route.mcr else labels.aux_Bhw
            losses["kl"] = self.distribution(tokens, label)
        if "ptc" in terms:
            losses["ptc"] = self.token_contrast(tokens, labels.aux_Bhw)
        if "aff" in terms:
            losses["aff"] = self.affinity_contrast(tokens, labels, refined="aff" in route.mcr)
        if terms & {"seg", "reg"}:
            refined = bool(route.mcr & {"seg", "reg"})
            label_BHW = self.segmentation_ids(labels.mcr_BHW if refined else labels.par_BHW)
            logits_BKhw = self.net.segment(tokens.top_BND, tokens.hw)
            if "seg" in terms:
                losses["seg"] = self.segmentation_loss(logits_BKhw, label_BHW)
            if "reg" in terms:
                pixels_B3HW = denormalise(images, *self.normalisation())
                losses["reg"] = dense_energy_loss(logits_BKhw, pixels_B3HW, label_BHW, group.content_BHW)
        return StepOutput({name: getattr(config, f"w_{name}") * loss for name, loss in losses.items()})

    @torch.no_grad()
    def labels(self, group: Batch, tokens: Tokens, route: Routing) -> Labels:
        """The label maps that the active terms read (unia.md 2.5)."""
        if not (route.aux or route.top):
            return Labels()
        images = group.views["view1"]
        aux_BCHW, top_BCHW = self.cams(images, group.tags_BC, tokens, route)
        return label_maps(
            self.config,
            route,
            aux_BCHW=aux_BCHW,
            top_BCHW=top_BCHW,
            tags_BC=group.tags_BC,
            pixels_B3HW=denormalise(images, *self.normalisation()),
            affinity_BNN=tokens.affinity_BNN,
            hw=tokens.hw,
            content_BHW=group.content_BHW,
        )

    def cams(
        self, images_B3HW: Tensor, tags_BC: Tensor, tokens: Tokens, route: Routing
    ) -> tuple[Tensor | None, Tensor | None]:
        """Auxiliary and top CAM (B,C,H,W), each where a term reads it (A3, unia.md 2.4).

        There is no dropout, so the training forward's maps serve scale 1, and an auxiliary CAM alone costs only the
        blocks up to its own.
        """
        net, scales, classes = self.net, self.config.cam_scales, self.info.num_classes
        first_BChw = net.both_maps_of(tokens) if 1.0 in scales else None
        maps = net.both_cam_maps if route.top else net.aux_cam_maps
        if not route.top and first_BChw is not None:
            first_BChw = first_BChw[:, :classes]
        with mode(net, training=False):
            cam = multi_scale_cam(
                maps,
                images_B3HW,
                scales,
                first_BChw=first_BChw,
                tags_BC=torch.cat([tags_BC, tags_BC], dim=1) if route.top else tags_BC,
            )
        return (cam[:, :classes] if route.aux else None), (cam[:, classes:] if route.top else None)

    def distribution(self, tokens: Tokens, label_BHW: Tensor | None) -> Tensor:
        """L_kl of the sampled map, with its share of the Gaussian prior (unia.md 2.6, 2.8 h)."""
        mean_BND, log_var_BND, share = tokens.mean_BND, tokens.log_var_BND, self.config.w_gauss
        assert mean_BND is not None
        assert log_var_BND is not None
        assert label_BHW is not None
        map_BN = sampled_map(mean_BND, log_var_BND, self.config.n_samples)
        loss = distribution_loss(map_BN, confident_map(label_BHW, tokens.hw))
        return (1.0 - share) * loss + share * gaussian_prior_loss(mean_BND, log_var_BND) if share else loss

    def token_contrast(self, tokens: Tokens, aux_Bhw: Tensor | None) -> Tensor:
        """L_ptc on F with relations from the auxiliary CAM (A6)."""
        assert aux_Bhw is not None
        return ptc_loss(tokens.top_BND, token_relations(self.token_ids(aux_Bhw)))

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
        return loss / (2 * len(affinity_BNN)) if self.config.aff_over_batch else loss

    def token_ids(self, label_Bhw: Tensor) -> Tensor:
        """Label values (B,N) of tokens; where the data has no background class, background is ignored."""
        label_BN = label_Bhw.flatten(1)
        return label_BN if self.info.has_background else label_BN.masked_fill(label_BN == 0, IGNORE)

    def segmentation_ids(self, label_BHW: Tensor | None) -> Tensor:
        """Label values as the decoder numbers them: without a background class 0 becomes 255 and ids start at 0."""
        assert label_BHW is not None
        if self.info.has_background:
            return label_BHW
        return torch.where((label_BHW == 0) | (label_BHW == IGNORE), IGNORE, label_BHW - 1)

    def optimizers(self) -> list[OptimizerPlan]:
        """AdamW with decay on every parameter, heads faster, warm-up and polynomial decay (unia.md 3)."""
        config = self.config
        lr = config.lr * config.lr_factor
        return [
            power_adamw(
                self.net.named_parameters(),
                lr=lr,
                head_lr=lr * config.head_lr_scale,
                weight_decay=config.weight_decay,
                total=self.info.iterations,
                warmup=self.warmup_steps,
                start_ratio=config.warmup_start,
                power=config.power,
            )
        ]

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        module = self.net.uncertainty
        return {
            **super().describe(),
            "aux_block": self.net.aux_block,
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
