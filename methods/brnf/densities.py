"""BRNF's two densities as it trains and uses them: f1, which classifies pixels, and f2, which gates base seeds
(brnf.md 2.3 to 2.5).

Axes: B images, K labels (background at 0), N = B h w pixels, S of them, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.api.method import StepOutput
from harness.api.vocabulary import IGNORE
from methods.brnf.density import TIE, confident_labels, flow_loss
from methods.brnf.flow import flow_input
from methods.brnf.knobs import BrnfConfig
from methods.brnf.mixture import ClassFlow
from methods.brnf.pixels import DROPPED, balanced_pixels, one_hot
from methods.brnf.seeds import gated_seed, likelihood_gate
from methods.parts.tensors import full_precision


class Pixels(NamedTuple):
    """Pixels of a group in a row, without gradient."""

    a_ND: Tensor
    """What flows read."""
    present_BK: Tensor
    """bool: labels of each image, background among them."""
    content_N: Tensor
    """bool: no padding."""

    @property
    def present_NK(self) -> Tensor:
        """`present_BK` of each pixel's image."""
        return self.present_BK.repeat_interleave(len(self.a_ND) // len(self.present_BK), dim=0)


def scaled(features_ND: Tensor, config: BrnfConfig) -> Tensor:
    """Features at the length that flows read."""
    return flow_input(features_ND, "sqrt" if config.feature_scale == "sqrt" else 1.0)


@torch.no_grad()
def pixels_of(v_BDhw: Tensor, valid_BKhw: Tensor, tags_BC: Tensor, config: BrnfConfig) -> Pixels:
    """Features of all pixels of a group; `valid_BKhw` in {0,1} marks in its first channel what is no padding."""
    present_BK = torch.cat([torch.ones_like(tags_BC[:, :1]), tags_BC], dim=1) > 0
    rows_ND = v_BDhw.detach().permute(0, 2, 3, 1).flatten(0, 2)
    return Pixels(scaled(rows_ND, config), present_BK, valid_BKhw[:, 0].flatten() > 0)


class Density(nn.Module):
    """A flow with its classes, and how many pixels of each class it has learned from: a class with fewer than the knob
    `density_pixels` waits."""

    seen_K: Tensor

    def __init__(self, config: BrnfConfig, dim: int, labels: int, *, single: bool = False):
        super().__init__()
        self.config, self.dim, self.labels, self.single = config, dim, labels, single
        self.density = ClassFlow(
            dim,
            1 if single else labels,
            hidden=config.hidden,
            blocks=config.n_blocks,
            clamp=config.clamp,
            components=1 if single else config.components,
            learned_weights=config.learned_weights and not single,
            means=config.mean_init,
            fixed=single,
        )
        self.register_buffer("seen_K", torch.zeros(labels))

    @property
    def ready_K(self) -> Tensor:
        """bool (K,): classes that do not wait."""
        return self.seen_K >= self.config.density_pixels

    def learn(self, pixels: Pixels, label_N: Tensor, wanted_N: Tensor, w_disc: float = 0.0) -> tuple[Tensor, Tensor]:
        """L_f on some of the wanted pixels with noise, nats per vector, with `w_disc` times the cross-entropy of those
        that are labelled; and how many of each label there were (K,) (brnf.md 2.3)."""
        config, classes = self.config, self.density.classes
        kind_N = torch.where(label_N == IGNORE, self.labels, label_N).masked_fill(~wanted_N, DROPPED)
        index_S, kept_S = balanced_pixels(
            kind_N, self.labels + 1, per_kind=config.class_pixels, most=config.flow_pixels
        )
        label_S = label_N[index_S].masked_fill(~kept_S, IGNORE)
        seen_K = one_hot(label_S, self.labels).sum(dim=0)
        present_SK = torch.ones_like(kept_S)[:, None] if self.single else pixels.present_NK[index_S]
        a_SD = pixels.a_ND[index_S]
        likelihood_SK = self.density.likelihood(*self.density.latent(a_SD + config.noise * torch.randn_like(a_SD)))
        class_S = torch.where(label_S == IGNORE, IGNORE, 0) if self.single else label_S
        loss = flow_loss(likelihood_SK, class_S, present_SK & kept_S[:, None])
        if w_disc > 0:
            told_SK = one_hot(class_S, classes)
            open_SK = present_SK | (class_S == IGNORE)[:, None]
            log_posterior_SK = likelihood_SK.masked_fill(~open_SK, -torch.inf).log_softmax(dim=1)
            own = log_posterior_SK.masked_fill(told_SK == 0, 0.0).sum()
            loss = loss - w_disc * own / told_SK.sum().clamp(min=1)
        return loss, seen_K


class Classifier(Density):
    """f1: learns from the prototype CAM's labels, and classifies pixels."""

    def train_on(self, pixels: Pixels, proto_BKhw: Tensor, out: StepOutput) -> None:
        """Add L_f1 to the losses of a step."""
        config = self.config
        with torch.no_grad():
            label_N = confident_labels(proto_BKhw, pixels.present_BK, config.tau_c, config.margin).flatten()
            wanted_N = pixels.content_N
            if config.density_cutoff > 0:
                sure_N = proto_BKhw.amax(dim=1).flatten() >= config.density_cutoff - TIE
                wanted_N = wanted_N & (label_N != IGNORE) & sure_N
        out.losses["f1"], seen_K = self.learn(pixels, label_N, wanted_N, config.w_disc)
        out.logged["f1_nats"] = out.losses["f1"].detach() / self.dim
        out.stats["f1_seen"] = seen_K[None]

    @torch.no_grad()
    def posterior(self, pixels: Pixels) -> Tensor:
        """The GMM classifier of every pixel (N,K), 0 on padding, and in images that hold a class without density:
        another one would take its pixels."""
        z_ND, _ = self.density.latent(pixels.a_ND)
        present_NK = pixels.present_NK
        posterior_NK = self.density.posterior(z_ND, present_NK, self.config.t_g * self.dim)
        waits_N = (present_NK & ~self.ready_K).any(dim=1)
        return posterior_NK * (pixels.content_N & ~waits_N)[:, None]


class SeedGate(Density):
    """f2: learns from the base seed's labels, and depresses what of the seed it finds unlikely."""

    mean_K: Tensor
    std_K: Tensor
    known_K: Tensor

    def __init__(self, config: BrnfConfig, dim: int, labels: int):
        super().__init__(config, dim, labels, single=config.f2_prior == "single")
        for name in ("mean_K", "std_K", "known_K"):
            self.register_buffer(name, torch.zeros(labels))

    def train_on(self, pixels: Pixels, seed_BKhw: Tensor, out: StepOutput) -> Tensor:
        """Add L_f2 to the losses of a step, and the moments of its scores to the statistics; the label of each pixel
        whose base seed names a class, else 255: (N,)."""
        label_N, front_N = self.front(pixels, seed_BKhw)
        learned_N = front_N if self.single else label_N
        out.losses["f2"], seen_K = self.learn(pixels, learned_N, learned_N != IGNORE)
        out.logged["f2_nats"] = out.losses["f2"].detach() / self.dim
        out.stats["f2_seen"] = seen_K[None]
        return front_N

    @torch.no_grad()
    def front(self, pixels: Pixels, seed_BKhw: Tensor) -> tuple[Tensor, Tensor]:
        """Label of each pixel by its base seed, 255 where unsure or padding; and the same with 255 for background."""
        label_N = confident_labels(seed_BKhw, pixels.present_BK, self.config.seed_tau, 0.0).flatten()
        label_N = label_N.masked_fill(~pixels.content_N, IGNORE)
        return label_N, label_N.masked_fill(label_N == 0, IGNORE)

    @torch.no_grad()
    def scores(self, pixels: Pixels, front_N: Tensor) -> Tensor:
        """Likelihood of each pixel under the class of its seed, nats per dimension (N,) (brnf.md 2.5)."""
        likelihood_NK = self.density.likelihood(*self.density.latent(pixels.a_ND)) / self.dim
        class_N = torch.zeros_like(front_N) if self.single else torch.where(front_N == IGNORE, 0, front_N)
        return likelihood_NK.gather(1, class_N[:, None])[:, 0]

    @torch.no_grad()
    def moments(self, score_N: Tensor, front_N: Tensor) -> Tensor:
        """Number, sum and sum of squares of each class's scores: (3,K)."""
        powers_3N = torch.stack([torch.ones_like(score_N), score_N, score_N.square()])
        with full_precision(score_N):
            return powers_3N @ one_hot(front_N, self.labels)

    @torch.no_grad()
    def gated(self, seed_BKhw: Tensor, score_N: Tensor, front_N: Tensor, ramp: float, out: StepOutput) -> Tensor:
        """The seed (B,K,h,w) that the gate leaves; its share `ramp` alone is applied. Classes that wait pass."""
        shape = (len(seed_BKhw), *seed_BKhw.shape[-2:])
        ready_K = self.ready_K & (self.known_K > 0)
        gated_N = (front_N != IGNORE) & ready_K[torch.where(front_N == IGNORE, 0, front_N)]
        label_N = front_N.masked_fill(~gated_N, IGNORE)
        config = self.config
        gate_N = likelihood_gate(score_N, label_N, self.mean_K, self.std_K, config.kappa, config.gate_softness)
        out.logged["gate_removed"] = (1.0 - gate_N).sum() / gated_N.sum().clamp(min=1)
        out.logged["f2_waiting"] = (~ready_K[1:]).float().sum()
        gate_Bhw = 1.0 - ramp * (1.0 - gate_N.view(shape))
        return gated_seed(seed_BKhw, gate_Bhw, label_N.view(shape))

    @torch.no_grad()
    def follow(self, moments_3K: Tensor) -> None:
        """Move each class's mean and deviation; a class that was not there stays."""
        count_K, sum_K, square_K = moments_3K
        there_K, mean_K = count_K > 0, sum_K / count_K.clamp(min=1e-6)
        std_K = (square_K / count_K.clamp(min=1e-6) - mean_K.square()).clamp(min=0).sqrt()
        for kept_K, new_K in ((self.mean_K, mean_K), (self.std_K, std_K)):
            moved_K = torch.where(self.known_K > 0, torch.lerp(new_K, kept_K, self.config.ema), new_K)
            kept_K.copy_(torch.where(there_K, moved_K, kept_K))
        self.known_K.copy_((self.known_K > 0) | there_K)
