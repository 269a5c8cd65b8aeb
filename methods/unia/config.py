"""`unia`: uncertainty inference and affinity diversification (TMM 2025). Defaults are the card's values for VOC,
unia.md sections 2, 3 and 2.8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.power_knobs import PowerKnobs
from methods.parts.knobs import WIDEST, between, counted, each, one_of, positive, share

LABELS = {"seg_label": ("par", "mcr"), "aff_label": ("aux", "mcr"), "kl_label": ("aux", "mcr")}
WORDS = LABELS | {
    "aff_norm": ("none", "colnorm", "sinkhorn"),
    "aff_source": ("probabilities", "logits"),
}
"""Legal words of the knobs that are words."""


@dataclass(frozen=True, kw_only=True)
class UniaConfig(PowerKnobs):
    """Classification, token contrast and segmentation, with uncertain tokens turned down and a learned affinity."""

    cam_scales: tuple[float, ...] = knob(
        (1.0, 0.5, 0.75, 1.5), "image scales that a CAM is summed over; COCO also 1.25", source="unia.md 3, log"
    )
    w_aux: float = knob(1.0, "weight of the auxiliary classification loss", source="unia.md 2.6, code")
    w_kl: float = knob(0.1, "weight of the distribution loss", source="unia.md 2.6, log")
    w_ptc: float = knob(0.3, "weight of the token contrast; COCO .2", source="unia.md 2.6, log")
    w_aff: float = knob(
        0.0125,
        "weight of the contrastive affinity loss as a mean over pairs; published .1 (COCO .05) over twice the batch",
        source="unia.md 2.8 e",
    )
    w_seg: float = knob(0.15, "weight of the segmentation loss; COCO .12", source="unia.md 2.6, log")
    w_gauss: float = knob(
        0.0, "share of it that pulls mu and s to N(0,1); published variant .1", source="unia.md 2.8 h"
    )
    aff_start: float = knob(
        0.0, "the affinity loss starts here; COCO .15", unit="share of T", source="unia.md 2.6, code"
    )
    seg_label: str = knob(
        "par", "labels of segmentation and energy: par, or mcr from seg_mcr_start on; COCO mcr", unit="word",
        source="unia.md 2.8 b",
    )  # fmt: skip
    aff_label: str = knob(
        "aux", "labels of the affinity loss: aux, or mcr from aff_mcr_start on; COCO mcr", unit="word",
        source="unia.md 2.8 b",
    )  # fmt: skip
    kl_label: str = knob(
        "mcr", "labels of the distribution loss: aux, or mcr from kl_mcr_start on", unit="word", source="unia.md 2.8 b"
    )
    seg_mcr_start: float = knob(
        0.4, "refined labels reach segmentation here, but not before seg_start; COCO .375", unit="share of T",
        source="unia.md 2.7, code: 8000 of 20000",
    )  # fmt: skip
    aff_mcr_start: float = knob(
        0.4, "refined labels reach the affinity loss here, but not before seg_start; COCO .375", unit="share of T",
        source="unia.md 2.7, code: 8000 of 20000",
    )  # fmt: skip
    kl_mcr_start: float = knob(
        0.4, "refined labels reach the distribution loss here, but not before seg_start; COCO .375",
        unit="share of T", source="unia.md 2.7, code: 8000 of 20000",
    )  # fmt: skip
    mcr_prior_start: float = knob(
        0.3, "CAM and PAR agreeing on a class override the refined label from here on; COCO .075", unit="share of T",
        source="unia.md 2.5, code: 6000 of 20000",
    )  # fmt: skip
    mcr_trust_cam: bool = knob(
        False, "from mcr_trust_start on, a CAM label overrides where PAR ignores; ACDC true", unit="bool",
        source="unia.md 2.5, code",
    )  # fmt: skip
    mcr_trust_start: float = knob(
        0.45, "start of mcr_trust_cam", unit="share of T", source="unia.md 2.5, code: 9000 of 20000"
    )
    uncertainty: bool = knob(True, "tokens pass the uncertainty module", unit="bool", source="unia.md 2.2")
    separate_mu_head: bool = knob(
        False, "mean and variance are projected by a head each", unit="bool", source="unia.md 2.8 a"
    )
    pooling_size: int = knob(
        4, "side of the global branch's pooled cells, fitted by design section 4 d", unit="tokens on a 28x28 grid",
        source="unia.md 2.2, log",
    )  # fmt: skip
    n_samples: int = knob(50, "draws that the sampled map averages", source="unia.md 2.2, log")
    aff_temperature: float = knob(0.5, "temperature of the affinity loss", source="unia.md 2.6, code")
    radius: int = knob(
        7, "pairs at most this many rows and columns apart count, fitted by design section 4 d",
        unit="tokens on a 28x28 grid", source="unia.md 2.6, log",
    )  # fmt: skip
    aff_norm: str = knob(
        "none", "the affinity before it spreads labels: none, colnorm or sinkhorn", unit="word", source="unia.md 2.8 g"
    )
    aff_source: str = knob(
        "logits",
        "the affinity reads attention before its softmax (logits) or after (probabilities)",
        unit="word",
        source="published code, and the log in unia.md 5; unia.md 2.1 says after",
    )
    aff_over_batch: int = knob(
        0,
        "the affinity loss weighs less in larger groups, as published: w_aff is its weight in groups of this many "
        "images, published .1/(2 x 4) in 4 (COCO .05/(2 x 2) in 2); 0: a mean in any group",
        unit="images",
        source="unia.md 2.8 e",
    )
    freeze_aff_bias: bool = knob(
        False, "the affinity head's bias is not trained; true as published", unit="bool", source="unia.md 2.8 d"
    )
    bilinear_label_ids: bool = knob(
        False, "refined labels are resized to tokens bilinearly, ids and all; true as published", unit="bool",
        source="unia.md 2.8 c",
    )  # fmt: skip
    uncertainty_width: int = knob(
        1024, "channels inside the uncertainty module", unit="channels", source="unia.md 2.2, code", fit="width"
    )
    uncertainty_hidden: int = knob(
        2048, "hidden width of its cosine heads", unit="channels", source="unia.md 2.2, code", fit="width"
    )
    uncertainty_bottleneck: int = knob(
        256, "bottleneck of its cosine heads", unit="channels", source="unia.md 2.2, code", fit="width"
    )

    def problems(self) -> list[Problem]:
        """Rules on weights, starts, words and sizes."""
        found = super().problems()
        found += share("w_gauss", self.w_gauss)
        for name, legal in WORDS.items():
            found += one_of(name, getattr(self, name), legal)
        if self.w_kl > 0 and not self.uncertainty:
            found.append(Problem("w_kl", f"{self.w_kl:g} without uncertainty has no map", "w_kl=0"))
        found += positive("aff_temperature", self.aff_temperature)
        found += each(counted, self, ("pooling_size", "n_samples", "radius"))
        found += each(counted, self, ("uncertainty_width", "uncertainty_hidden", "uncertainty_bottleneck"))
        return found + between("aff_over_batch", self.aff_over_batch, 0, WIDEST)

    def last_start(self) -> float:
        """Share of T after which every loss term has started; switches between labels are no starts."""
        return max(self.ptc_start, self.aff_start, self.seg_start)


NO_MCR: Mapping[str, Any] = {"seg_label": "par", "aff_label": "aux", "kl_label": "aux"}
NO_UNCERTAINTY: Mapping[str, Any] = {"uncertainty": False, "w_kl": 0.0}
ABLATIONS: dict[str, Mapping[str, Any]] = {
    "base": {**NO_UNCERTAINTY, **NO_MCR, "w_aff": 0.0},
    "no_unc": NO_UNCERTAINTY,
    "no_kl": {"w_kl": 0.0},
    "no_aff": {**NO_MCR, "w_aff": 0.0},
    "no_mcr": NO_MCR,
    "no_ptc": {"w_ptc": 0.0},
    "no_reg": {"w_reg": 0.0},
    "mcr": {"seg_label": "mcr", "aff_label": "mcr", "kl_label": "mcr"},
    "mu_head": {"separate_mu_head": True},
    "sinkhorn": {"aff_norm": "sinkhorn"},
    "vae": {"w_gauss": 0.1},
    "softmax": {"aff_source": "probabilities"},
}
"""Components of unia.md section 1 taken out one by one (`base`: all of them), and the flags of 2.8 turned over."""

METHOD = MethodSpec(
    name="unia",
    config=UniaConfig,
    preset="methods.unia.presets:preset",
    build="methods.unia.method:build",
    labels=("tags",),
    targets=("cam", "pseudo", "segmentation"),
    title="UniA: uncertainty inference and affinity diversification, TMM 2025",
    variants=("default", "released"),
    ablations=ABLATIONS,
    published="methods.unia.published:key_map",
    version=2,
)
