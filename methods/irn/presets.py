"""Presets of `irn` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset
from methods.parts.bases.segmenter_knobs import segmenter_sizes, segmenter_values
from methods.parts.sizes import card_family, sized_preset

SHAPES_CNN = "shapes_cnn"
"""A classifier on the last stages of a CNN, as the card has it."""
RESNET50 = "resnet50.tv_in1k"
"""The ImageNet weights that both networks of the paper start from (irn.md 1)."""
STEPS = {"voc": (3305, 990), "coco": (25865, 7758)}
"""Of the classifier, 5 epochs in batches of 16, and of the boundary network, 3 in batches of 32, last partial batches
dropped (irn.md 3): 10,582 and 82,783 images."""
CAM_THRESHOLD = 0.15
COCO: dict[str, Any] = {"refine": "crf", "conf_fg": 0.35, "conf_bg": 0.1}
"""The boundary network is skipped for its cost and the labels after the CRF are the masks (sipe.md 2.5); thresholds of
public code (irn.md 3, COCO)."""
RELEASED: dict[str, Any] = {"imagenet_normalisation": True, "displacement": True}
"""What the published code does and scores of semantic masks do not need (irn.md 1, 2.4; operators.md A1)."""
LAB: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "cam_scales": (1.0, 0.5, 1.5)}
SHAPES: dict[str, Any] = {"lr": 0.02, "cam_scales": (1.0,), "label_crf": False, "rw_steps": 4}
"""Pictures of 96 pixels are seen at one scale, 16 steps cross an object of theirs, and labels need no extra that is not
installed."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    card, small = card_family(family), family == "shapes" or tier != "paper"
    knobs: dict[str, Any] = {**(COCO if card == "coco" else {}), **(RELEASED if variant == "released" else {})}
    segmenter = segmenter_sizes(family, tier)
    if family != "shapes":
        # The run's own, so that one word changes all three networks.
        del segmenter["backbone"]
    if not small:
        steps, boundary_steps = STEPS[card]
        return Preset(
            backbone=RESNET50,
            decoder="deeplabv2",
            crop=512,
            batch=16,
            group=16,
            iterations=steps,
            card_iterations=steps,
            cam_threshold=CAM_THRESHOLD,
            inference=PROTOCOLS["deeplab"],
            trials=20,
            seeds=3,
            knobs=knobs,
            networks={"segmenter": segmenter, "affinity": {"batch": 32, "group": 32, "iterations": boundary_steps}},
        )
    knobs |= SHAPES if family == "shapes" else LAB
    sized = sized_preset(
        family, tier, {**knobs, **segmenter_values(family, tier)}, smoke_iterations=80, lab_iterations=300
    )
    return dataclasses.replace(
        sized,
        backbone=SHAPES_CNN if family == "shapes" else sized.backbone,
        card_iterations=STEPS[card][0],
        cam_threshold=CAM_THRESHOLD,
        networks={"segmenter": segmenter, "affinity": {"iterations": max(1, sized.iterations // 3)}},
    )
