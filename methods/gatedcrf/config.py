"""`gatedcrf`: partial cross-entropy and the gated CRF loss (2019). Defaults: sparse_baselines.md 3.2."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.sparse_knobs import SPARSE_LABELS, SparseKnobs
from methods.parts.knobs import between, not_negative, positive


@dataclass(frozen=True, kw_only=True)
class GatedCrfConfig(SparseKnobs):
    """Cross-entropy on the labelled pixels, and pairs of near and alike pixels that should agree."""

    w_crf: float = knob(0.1, "weight of the gated CRF loss", source="sparse_baselines.md 3.2, code")
    radius: int = knob(
        5,
        "half side of the window, on maps of stride 4; fitted to other strides",
        unit="cells of 4 px",
        source="sparse_baselines.md 3.2, code",
    )
    sigma_xy: float = knob(
        6.0,
        "of the place, on maps of stride 4; fitted to other strides",
        unit="cells of 4 px",
        source="sparse_baselines.md 3.2, code",
    )
    sigma_rgb: float = knob(
        0.1, "of the colour", unit="standard deviations of the normalisation", source="sparse_baselines.md 3.2, code"
    )
    w_place: float = knob(
        0.0, "weight of a second kernel of the place alone", source="sparse_baselines.md 3.5: not in the code"
    )
    gate_labelled: bool = knob(
        False, "labelled pixels are not moved by their neighbours", unit="bool", source="sparse_baselines.md 3.5"
    )
    gate_padding: bool = knob(
        True, "padding is no neighbour", unit="bool", source="sparse_baselines.md 3.2, code: source mask"
    )
    crf_start: float = knob(
        0.005,
        "the gated CRF loss starts after this; 0: with the first step",
        unit="share of T",
        source="sparse_baselines.md 3.2, code",
    )

    def problems(self) -> list[Problem]:
        """Rules on weights, kernel and start."""
        return [
            *super().problems(),
            *not_negative("w_crf", self.w_crf),
            *not_negative("w_place", self.w_place),
            *between("radius", self.radius, 1, 32),
            *positive("sigma_xy", self.sigma_xy),
            *positive("sigma_rgb", self.sigma_rgb),
            *between("crf_start", self.crf_start, 0, 1),
        ]


METHOD = MethodSpec(
    name="gatedcrf",
    config=GatedCrfConfig,
    preset="methods.gatedcrf.presets:preset",
    build="methods.gatedcrf.method:build",
    labels=SPARSE_LABELS,
    targets=("segmentation",),
    title="Gated CRF loss, 2019",
    variants=("default", "released"),
    ablations={"base": {"w_crf": 0.0}, "gate_labelled": {"gate_labelled": True}},
    version=1,
)
