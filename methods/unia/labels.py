"""Which label map feeds which loss of UniA, and the maps themselves (unia.md 2.5, 2.7).

Axes: B images, C classes, H W pixels, N = h x w tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.method import Progress
from methods.parts.bases.aux_segmenter import has_started
from methods.parts.ops.affinity import normalise_affinity
from methods.parts.ops.cam import Tags, resize, threshold_labels
from methods.parts.ops.pseudo import pseudo_labels
from methods.parts.ops.refinement import mutual_refinement, par_and_affinity_labels
from methods.unia.config import UniaConfig


@dataclass(frozen=True)
class Routing:
    """Terms that are on at a step, those that read refined labels, and the rules of the refinement."""

    terms: frozenset[str]
    mcr: frozenset[str]
    prior: bool
    trust_cam: bool

    @property
    def aux(self) -> bool:
        """Whether a term reads labels of the auxiliary CAM."""
        return bool(self.terms & {"ptc", "aff", "kl"} - self.mcr)

    @property
    def top(self) -> bool:
        """Whether a term reads labels of the top CAM."""
        return bool(self.mcr or self.terms & {"seg", "reg"})

    @property
    def affinity(self) -> bool:
        """Whether the affinity is read: by its loss, or by the refined labels."""
        return bool(self.mcr or "aff" in self.terms)


def routing(config: UniaConfig, progress: Progress) -> Routing:
    """The routing of a step: terms with weight that have started; refined labels never before `seg_start`."""
    now = progress.fraction
    starts = {
        "cls": 0.0,
        "aux": 0.0,
        "kl": 0.0,
        "ptc": config.ptc_start,
        "aff": config.aff_start,
        "seg": config.seg_start,
        "reg": config.seg_start,
    }
    labels = {
        "kl": (config.kl_label, config.kl_mcr_start),
        "aff": (config.aff_label, config.aff_mcr_start),
        "seg": (config.seg_label, config.seg_mcr_start),
        "reg": (config.seg_label, config.seg_mcr_start),
    }
    terms = {name for name, start in starts.items() if getattr(config, f"w_{name}") > 0 and has_started(now, start)}
    after_seg = has_started(now, config.seg_start)
    mcr = {n for n, (word, start) in labels.items() if word == "mcr" and after_seg and now >= start}
    return Routing(
        frozenset(terms),
        frozenset(terms & mcr),
        prior=has_started(now, config.mcr_prior_start),
        trust_cam=config.mcr_trust_cam and now >= config.mcr_trust_start,
    )


@dataclass(frozen=True)
class Labels:
    """Label values 0, 1..C, 255 of one step; None where no term reads them."""

    aux_Bhw: Tensor | None = None
    """P_aux at token size."""
    par_BHW: Tensor | None = None
    """R."""
    mcr_BHW: Tensor | None = None
    """L."""


@torch.no_grad()
def top_labels(
    config: UniaConfig,
    route: Routing,
    *,
    aux_Bhw: Tensor | None,
    top_BCHW: Tensor,
    tags_BC: Tags,
    pixels_B3HW: Tensor,
    affinity_BNN: Tensor | None,
    hw: tuple[int, int],
    content_BHW: Tensor | None,
) -> Labels:
    """The maps that the routed terms read of the top CAM in [0,1], pixels 0..255 and the affinity of h x w tokens;
    `aux_Bhw` is passed on."""
    low, high = config.pseudo_low, config.pseudo_high
    dilations, iterations = config.par_dilations, config.par_iterations
    if not route.mcr:
        par_BHW = pseudo_labels(
            pixels_B3HW,
            top_BCHW,
            tags_BC,
            high=high,
            low=low,
            content_BHW=content_BHW,
            dilations=dilations,
            iterations=iterations,
        )
        return Labels(aux_Bhw, par_BHW)
    assert affinity_BNN is not None
    par_BHW, affinity_BHW = par_and_affinity_labels(
        pixels_B3HW,
        top_BCHW,
        tags_BC,
        normalise_affinity(affinity_BNN.detach(), config.aff_norm),
        hw,
        high=high,
        low=low,
        content_BHW=content_BHW,
        dilations=dilations,
        iterations=iterations,
    )
    cam_BHW = threshold_labels(top_BCHW, tags_BC, low=low, high=high, content_BHW=content_BHW)
    mcr_BHW = mutual_refinement(cam_BHW, par_BHW, affinity_BHW, prior=route.prior, trust_cam=route.trust_cam)
    return Labels(aux_Bhw, par_BHW, mcr_BHW)


def token_labels(label_BHW: Tensor, hw: tuple[int, int], *, bilinear: bool) -> Tensor:
    """Label values at token size, float32 (B,h,w): those of the patches' centres (unia.md 2.8 c).

    `bilinear` blends ids as the published code does; a blend equals no id.
    """
    label_B1HW = label_BHW[:, None].float()
    return (resize(label_B1HW, hw) if bilinear else F.interpolate(label_B1HW, hw, mode="nearest-exact"))[:, 0]
