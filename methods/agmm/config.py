"""`agmm`: adaptive Gaussian mixtures for sparse labels (CVPR 2023). Defaults are the card's for VOC, agmm.md 2 to 6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.spec import MethodSpec, knob
from harness.errors import Problem
from methods.parts.bases.sparse_knobs import SPARSE_LABELS, SparseKnobs
from methods.parts.knobs import between, not_negative, one_of, positive

VARIANCES = ("constant", "weighted", "unweighted", "learned")
DISTANCES = ("l1", "l2", "cosine")
ROUTES = ("none", "g", "p")
POOLINGS = ("image", "batch", "ema")
WEIGHTS = ("w_gmm", "w_1", "w_2", "w_sep", "w_cls")


@dataclass(frozen=True, kw_only=True)
class AgmmConfig(SparseKnobs):
    """Partial cross-entropy, Gaussian maps of the labelled classes, their separation, and what an image lacks."""

    w_gmm: float = knob(1.0, "weight of both losses of the Gaussian maps", source="agmm.md 2.4, code")
    w_1: float = knob(1.0, "weight of L_1, maps against prediction, beside w_gmm", source="agmm.md 2.4, code")
    w_2: float = knob(1.0, "weight of L_2, labels against maps, beside w_gmm", source="agmm.md 2.4, code")
    w_sep: float = knob(1.0, "weight of the separation of class centres", source="agmm.md 2.4, code")
    w_cls: float = knob(1.0, "weight of the loss on labels that the image lacks", source="agmm.md 2.4, code")
    variance: str = knob(
        "constant",
        "of the Gaussians: constant, weighted or unweighted by the distances of the image, or learned for each class",
        unit="name",
        source="agmm.md 2.3: constant in the released code, weighted in equation 7",
    )
    sharpness: float = knob(
        1.0,
        "s in exp(-s d^2): constant, or where learning starts",
        unit="1/distance^2",
        source="agmm.md 2.3, code: sigma^2 = 1/2",
    )
    distance: str = knob(
        "l1",
        "of features from centres: l1 mean absolute, l2 mean squared difference, or cosine (1 - cosine)",
        unit="name",
        source="agmm.md 2.3, code",
    )
    detach: str = knob(
        "none",
        "what L_1 sends no gradient to: none, g (the maps) or p (the prediction)",
        unit="name",
        source="agmm.md 2.3, code: nothing is detached",
    )
    l1_start: float = knob(0.0, "L_1 starts after this", unit="share of T", source="agmm.md 6: not in the code")
    l1_ramp: float = knob(
        0.0, "L_1 rises linearly over this from its start on", unit="share of T", source="agmm.md 6: not in the code"
    )
    pooling: str = knob(
        "image",
        "centres: of each image, the mean over the group's images, or that into a moving average (ema)",
        unit="name",
        source="agmm.md 2.3, code",
    )
    bank_momentum: float = knob(0.9, "momentum of the moving average of centres, per step", source="agmm.md 6")
    sep_pool: str = knob(
        "mean",
        "class vectors of the separation: mean over images, or their sum as published",
        unit="name",
        source="agmm.md 7.1",
    )
    literal_corners: bool = knob(
        False,
        "centres, content and Gaussian maps are resized without aligned corners whatever the logits are, as published",
        unit="bool",
        source="agmm.md 7.2",
    )

    def problems(self) -> list[Problem]:
        """Rules on weights, maps and starts."""
        found = super().problems()
        for name in WEIGHTS:
            found += not_negative(name, getattr(self, name))
        for name, allowed in (
            ("variance", VARIANCES),
            ("distance", DISTANCES),
            ("detach", ROUTES),
            ("pooling", POOLINGS),
            ("sep_pool", ("mean", "sum")),
        ):
            found += one_of(name, getattr(self, name), allowed)
        found += positive("sharpness", self.sharpness)
        for name in ("l1_start", "l1_ramp", "bank_momentum"):
            found += between(name, getattr(self, name), 0, 1)
        return found


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "base": {"w_gmm": 0.0, "w_sep": 0.0, "w_cls": 0.0},
    "no_gmm": {"w_gmm": 0.0},
    "no_sep": {"w_sep": 0.0},
    "no_cls": {"w_cls": 0.0},
    **{f"var_{name}": {"variance": name} for name in VARIANCES},
    "detach_g": {"detach": "g"},
    "detach_p": {"detach": "p"},
    "sum": {"sep_pool": "sum"},
}
"""Components (agmm.md 2.4), the variances of its table 3, the routes of L_1, and the published bug (7.1)."""

METHOD = MethodSpec(
    name="agmm",
    config=AgmmConfig,
    preset="methods.agmm.presets:preset",
    build="methods.agmm.method:build",
    labels=SPARSE_LABELS,
    targets=("segmentation",),
    title="AGMM: adaptive Gaussian mixtures for sparse labels, CVPR 2023",
    variants=("default", "released"),
    ablations=ABLATIONS,
    tables="methods.agmm.tables:PAPER",
    version=1,
)
