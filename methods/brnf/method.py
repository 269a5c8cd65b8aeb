"""`brnf`: a CAM network guided by a base's seeds and by densities of its own pixel features (brnf.md 2, 3).

Axes: B images, C classes, K = C + 1 labels with background as channel 0, D features, h w cells, N = B h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api.fitting import CARD_DIM, fit_momenta, fit_widths
from harness.api.method import Batch, BuildInfo, OptimizerPlan, Progress, StepOutput
from methods.brnf.bank import Bank, regions
from methods.brnf.densities import Classifier, Density, Pixels, SeedGate, pixels_of
from methods.brnf.flow_optimiser import FiniteAdam
from methods.brnf.knobs import SEED, BrnfConfig
from methods.brnf.losses import calibration_loss, guidance_loss
from methods.parts.bases.prototype_net import Localised, SipeNet, located
from methods.parts.bases.schedules import power_adamw
from methods.parts.bases.stage_cam import StageCam
from methods.parts.nets.stage_classifier import FROZEN
from methods.parts.nets.stages import Stages, TokenStages
from methods.parts.ops.losses import multilabel_soft_margin
from methods.parts.ops.map_fusion import over_maximum, scores_beside_background
from methods.parts.ops.prototypes import consistency_loss, normalise, valid_map
from methods.parts.views.placed_views import PlacedViews

CARD_CNN_DIM = 2048
"""Channels of the last stage of the card's ResNet-50."""


@dataclass(frozen=True)
class Phase:
    """What is on at a step (brnf.md 2.8)."""

    flows: bool
    """The flows learn, and regions enter the bank."""
    used: bool
    """Gate, calibration and contrast are on."""
    ramp: float
    """Their share of weight, in (0,1]."""


class Brnf(StageCam):
    """Loss terms: `cls`, `gui`, `gsc`; from `flow_start` on `f1` and `f2`, nats per vector; from `use_start` on `cal`
    and `nce`. The flows have optimisers of their own, and neither they nor the bank hand a gradient to the network."""

    config: BrnfConfig
    net: SipeNet
    stats_concat = frozenset({"region", "region_valid", "f1_seen", "f2_seen"})

    def __init__(self, config: BrnfConfig, info: BuildInfo):
        config = fit_momenta(config, card_iterations=config.card_iterations, iterations=info.iterations)
        super().__init__(config, info)
        config, labels = self.config, info.num_classes + 1
        width = sum(config.side_dims)
        self.project = nn.Conv2d(width, config.flow_dim, 1, bias=False) if config.flow_dim else None
        self.dim = config.flow_dim or width
        self.f1 = Classifier(config, self.dim, labels) if config.f1 else None
        self.f2 = SeedGate(config, self.dim, labels) if config.f2 else None
        self.bank = Bank(config, labels, self.dim) if config.w_nce > 0 else None
        self.draw_seed = int(torch.randint(2**31, (), device="cpu"))

    def frozen(self, stages: Stages) -> int:
        """Of a ViT nothing is frozen: what the side branches read of it is detached (brnf.md 2.1)."""
        return 0 if isinstance(stages, TokenStages) else FROZEN

    def network(self, stages: Stages) -> SipeNet:
        """SIPE's network, of widths that follow the backbone's last map, which on the card has 768 or 2048 channels."""
        card = CARD_DIM if isinstance(stages, TokenStages) else CARD_CNN_DIM
        self.config = config = fit_widths(self.config, dim=stages.dims[-1] * CARD_DIM // card, tier=self.info.tier)
        attached = (3, 4) if config.side_detach == "x1x2" else ()
        frozen = self.frozen(stages)
        return SipeNet(stages, config.side_dims, self.info.num_classes, frozen=frozen, attached=attached)

    def transform(self) -> PlacedViews:
        """Images placed on a square, and base seeds on the grid of the features."""
        cells = -(-self.info.crop // self.net.stages.strides[3])
        return replace(super().transform(), extra=(cells, cells))

    def optimizers(self) -> list[OptimizerPlan]:
        """The network's, and one of each flow (brnf.md 3)."""
        return [self._network_plan(), *(self._flow_plan(flow) for flow in (self.f1, self.f2) if flow is not None)]

    def _network_plan(self) -> OptimizerPlan:
        config = self.config
        lr = config.lr * config.lr_factor
        heads = [] if self.project is None else list(self.project.parameters())
        if config.optimiser == "sgd":
            (plan,) = super().optimizers()
            if heads:
                plan.optimizer.add_param_group({"params": heads, "lr": lr * config.head_lr_scale})
            return plan
        body = {id(p) for p in self.net.stages.parameters()}
        named = [("encoder.p" if id(p) in body else "head.p", p) for p in [*self.net.parameters(), *heads]]
        plan = power_adamw(
            named,
            lr=lr,
            head_lr=lr * config.head_lr_scale,
            weight_decay=config.weight_decay,
            total=self.info.iterations,
            warmup=round(config.warmup * self.info.iterations),
            start_ratio=1e-6,
            power=config.power,
        )
        return replace(plan, clip_norm=config.clip_norm or None)

    def _flow_plan(self, flow: Density) -> OptimizerPlan:
        config, total = self.config, self.info.iterations
        learned = [p for p in flow.parameters() if p.requires_grad]
        return OptimizerPlan(
            FiniteAdam(learned, lr=config.flow_lr, betas=(0.5, 0.9)),
            lambda step: config.flow_decline ** (step / total),
            clip_norm=config.flow_clip or None,
            active=lambda progress: self.phase(progress).flows,
        )

    def phase(self, progress: Progress) -> Phase:
        """What is on at a step."""
        config, done = self.config, progress.fraction
        since = done - config.use_start
        risen = (since + 1 / progress.total) / config.ramp if config.ramp > 0 else 1.0
        return Phase(done >= config.flow_start, since >= 0, min(1.0, risen))

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses of one group."""
        config, images, phase = self.config, group.views["view1"], self.phase(progress)
        content = group.content_BHW
        if content is None:
            content = torch.ones_like(images[:, 0], dtype=torch.bool)
        valid_BKHW = valid_map(content, group.tags_BC, (int(images.shape[2]), int(images.shape[3])))
        found, side_BDhw = self.net.with_features(
            images, valid_BKHW, background_factor=config.background_factor, seed_features=config.seeds_train
        )
        valid_BKhw = valid_map(content, group.tags_BC, (int(side_BDhw.shape[2]), int(side_BDhw.shape[3])))
        proto_BKhw = normalise(found.is_cam * valid_BKhw)
        seed_BKhw = self.base_seed(group.extra[SEED], valid_BKhw)
        out = StepOutput({"cls": multilabel_soft_margin(found.score_BC, group.tags_BC)})
        if phase.flows:
            v_BDhw = (side_BDhw if self.project is None else self.project(side_BDhw)).float()
            pixels = pixels_of(v_BDhw, valid_BKhw, group.tags_BC, config)
            if self.f2 is not None:
                seed_BKhw = self._gate(self.f2, pixels, seed_BKhw, phase, out)
            if self.f1 is not None:
                self._classify(self.f1, pixels, proto_BKhw, found.cam, phase, out)
            if self.bank is not None:
                most = None if group.extents is None else group.extents.classes
                self._contrast(self.bank, v_BDhw, proto_BKhw, found, valid_BKhw, most, phase, out)
        if config.w_gui > 0:
            out.losses["gui"] = config.w_gui * guidance_loss(proto_BKhw, seed_BKhw, valid_BKhw)
        w_gsc = config.w_gsc if phase.flows else config.w_gsc_warm
        if w_gsc > 0:
            out.losses["gsc"] = w_gsc * consistency_loss(found.cam, normalise(found.is_cam))
        return out

    @torch.no_grad()
    def base_seed(self, maps_BLhw: Tensor, valid_BKhw: Tensor) -> Tensor:
        """A base's maps, of L = C or K labels, as seeds (B,K,h,w) in [0,1]: classes of the tags over their own maximum,
        and what they leave of 1, to the power `seed_power`, as background (brnf.md 2.2).

        A background map of the base's own is not read: that of a gated seed is made of its classes too.
        """
        given = maps_BLhw.float()[:, -self.info.num_classes :].clamp(min=0)
        grid = (int(valid_BKhw.shape[2]), int(valid_BKhw.shape[3]))
        if given.shape[-2:] != grid:
            given = F.interpolate(given, grid, mode="bilinear", align_corners=False)
        classes_BChw = over_maximum(given) * valid_BKhw[:, 1:]
        background = (1.0 - classes_BChw.amax(dim=1, keepdim=True)) ** self.config.seed_power
        return torch.cat([background, classes_BChw], dim=1) * valid_BKhw

    def _gate(self, f2: SeedGate, pixels: Pixels, seed_BKhw: Tensor, phase: Phase, out: StepOutput) -> Tensor:
        """Train f2; the seed that it leaves (brnf.md 2.5)."""
        front_N = f2.train_on(pixels, seed_BKhw, out)
        score_N = f2.scores(pixels, front_N)
        out.stats["gate"] = f2.moments(score_N, front_N)
        return f2.gated(seed_BKhw, score_N, front_N, phase.ramp, out) if phase.used else seed_BKhw

    def _classify(
        self, f1: Classifier, pixels: Pixels, proto_BKhw: Tensor, cam_BKhw: Tensor, phase: Phase, out: StepOutput
    ) -> None:
        """Train f1; calibrate the CAM by its GMM (brnf.md 2.3, 2.4)."""
        f1.train_on(pixels, proto_BKhw.detach(), out)
        if not phase.used:
            return
        out.logged["f1_waiting"] = (~f1.ready_K).float().sum()
        if self.config.w_cal > 0:
            cam_NK = cam_BKhw.permute(0, 2, 3, 1).flatten(0, 2)
            loss = calibration_loss(cam_NK, f1.posterior(pixels), self.config.gamma)
            out.losses["cal"] = phase.ramp * self.config.w_cal * loss

    def _contrast(
        self,
        bank: Bank,
        v_BDhw: Tensor,
        proto_BKhw: Tensor,
        found: Localised,
        valid_BKhw: Tensor,
        most: int | None,
        phase: Phase,
        out: StepOutput,
    ) -> None:
        """Regions for the bank, and their contrast with it (brnf.md 2.7); an image has at most `most` classes."""
        config = self.config
        region_BKD, valid_BK = regions(
            v_BDhw, proto_BKhw.detach(), found.seeds, valid_BKhw, tau=config.region_tau, least=config.region_min
        )
        out.stats["region"], out.stats["region_valid"] = region_BKD.detach(), valid_BK.float()
        if phase.used:
            out.losses["nce"] = phase.ramp * config.w_nce * bank.contrast(region_BKD, valid_BK, most)
            out.logged["bank_accuracy"] = bank.accuracy.clone()

    @torch.no_grad()
    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """Counts, the gate's moments, the bank's queues, and from time to time its samples."""
        super().update(stats, progress)
        for name, density in (("f1_seen", self.f1), ("f2_seen", self.f2)):
            if density is not None and name in stats:
                density.seen_K.add_(stats[name].sum(dim=0))
        if self.f2 is not None and "gate" in stats:
            self.f2.follow(stats["gate"])
        if self.bank is not None and "region" in stats:
            self.bank.push(stats["region"], stats["region_valid"])
            if self.f1 is not None and self._draws_after(progress):
                self.bank.draw(self.f1, self.draw_seed + progress.step)

    def _draws_after(self, progress: Progress) -> bool:
        """From the step before the bank is used on, every `aug_every`."""
        first = max(0, math.ceil(self.config.use_start * progress.total) - 1)
        every = max(1, round(self.config.aug_every * progress.total))
        return progress.step >= first and (progress.step - first) % every == 0

    def localised(self, pair_2B3HW: Tensor, tags_BC: Tensor | None) -> Tensor:
        """Prototype CAM (B,K,h,w) of images and mirrors."""
        if tags_BC is None:
            tags_BC = torch.ones(pair_2B3HW.shape[1], self.info.num_classes, device=pair_2B3HW.device)
        return self.located(self.net.maps(pair_2B3HW.flatten(0, 1)), tags_BC)

    def located(self, pair: tuple[Tensor, Tensor, Tensor], tags_BC: Tensor) -> Tensor:
        """`localised`, of what the network's `maps` gives of images and, behind them, their mirrors."""
        config = self.config
        _, is_cam = located(pair, tags_BC, seed_features=config.seeds_infer, background_factor=config.background_factor)
        return is_cam

    def scores(self, maps_BLHW: Tensor) -> Tensor:
        """Scores of the classes beside the background's own map."""
        return scores_beside_background(maps_BLHW)

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        config = self.config
        fitted = {"side_dims": list(config.side_dims), "hidden": config.hidden, "dim": self.dim, "ema": config.ema}
        return {**super().describe(), **fitted}


def build(config: BrnfConfig, info: BuildInfo) -> Brnf:
    """The method on its backbone. Raises BadInput where backbone, weights or crop do not fit."""
    return Brnf(config, info)
