"""Presets of `brnf`: sizes of its own networks, and knobs. What it takes from its base has the base's sizes. No score
has been recorded for them yet."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset
from methods.brnf.knobs import CARD_STEPS
from methods.parts.bases.segmenter_knobs import segmenter_sizes, segmenter_values
from methods.parts.sizes import card_family, sized_preset

SHAPES_CNN = "shapes_cnn"
RESNET50 = "resnet50.tv_in1k"
STEPS = {"voc": (CARD_STEPS, 990), "coco": (51300, 7758)}
"""Of the network, 6 epochs of VOC and 10 of COCO in batches of 16 (brnf.md 3, inferred), and of the boundary network,
3 in batches of 32 (irn.md 3)."""
COCO: dict[str, Any] = {"refine": "crf"}
"""The labels after the CRF are the masks (brnf.md 4)."""
SMALL: dict[str, Any] = {"flow_lr": 3e-3, "density_pixels": 200, "region_min": 2, "cam_scales": (1.0,)}
"""Hundreds of steps on grids of a hundred cells: flows that learn faster, regions and classes of fewer of them."""
SHAPES: dict[str, Any] = {"lr": 0.02, "label_crf": False}
LAB: dict[str, Any] = {
    "optimiser": "adamw", "lr": 4e-5, "head_lr_scale": 20.0, "weight_decay": 0.01, "warmup": 0.05, "label_crf": False,
}  # fmt: skip
"""A ViT whose trunk is trained (brnf.md 3); labels need no extra that is not installed."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    card, small = card_family(family), family == "shapes" or tier != "paper"
    knobs: dict[str, Any] = dict(COCO) if card == "coco" else {}
    steps, boundary_steps = STEPS[card]
    segmenter = segmenter_sizes(family, tier)
    if family != "shapes":
        # The run's own, so that one word changes all networks.
        del segmenter["backbone"]
    if not small:
        return Preset(
            backbone=RESNET50,
            decoder="deeplabv2",
            crop=512,
            batch=16,
            group=16,
            iterations=steps,
            card_iterations=steps,
            inference=PROTOCOLS["deeplab"],
            trials=20,
            seeds=3,
            knobs=knobs | {"card_iterations": steps},
            networks={"segmenter": segmenter, "affinity": {"batch": 32, "group": 32, "iterations": boundary_steps}},
        )
    knobs |= SMALL | (SHAPES if family == "shapes" else LAB) | segmenter_values(family, tier)
    sized = sized_preset(family, tier, knobs, smoke_iterations=60, lab_iterations=300)
    return dataclasses.replace(
        sized,
        backbone=SHAPES_CNN if family == "shapes" else sized.backbone,
        cam_threshold=0.5,
        networks={"segmenter": segmenter, "affinity": {"iterations": max(1, sized.iterations // 3)}},
    )
