"""Presets of `brnf`: sizes of its own networks, and knobs. What it takes from its base has the base's sizes. Scores of
tier smoke: docs/results.md."""

from __future__ import annotations

from typing import Any

from harness.api.spec import Preset
from methods.brnf.knobs import CARD_STEPS
from methods.parts.bases.recipe_presets import is_small, recipe_preset
from methods.parts.sizes import card_family

STEPS = {"voc": (CARD_STEPS, 990), "coco": (51300, 7758)}
"""Of the network, 6 epochs of VOC and 10 of COCO in batches of 16 (brnf.md 3, inferred), and of the boundary network,
3 in batches of 32 (irn.md 3)."""
COCO: dict[str, Any] = {"refine": "crf"}
"""The labels after the CRF are the masks (brnf.md 4)."""
SMALL: dict[str, Any] = {"flow_lr": 3e-3, "density_pixels": 200, "region_min": 2, "cam_scales": (1.0,)}
"""Hundreds of steps on grids of a hundred cells: flows that learn faster, regions and classes of fewer of them."""
SHAPES: dict[str, Any] = {"lr": 0.02, "label_crf": False}
SMOKE: dict[str, Any] = {"lr": 0.1, "rw_steps": 4}
"""Of tier smoke on `shapes`: rate and walk of `sipe`, whose network and pictures these are."""
LAB: dict[str, Any] = {
    "optimiser": "adamw", "lr": 4e-5, "head_lr_scale": 20.0, "weight_decay": 0.01, "warmup": 0.05, "label_crf": False,
}  # fmt: skip
"""A ViT whose trunk is trained (brnf.md 3); labels need no extra that is not installed."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family and tier; there is one variant."""
    card = card_family(family)
    knobs: dict[str, Any] = dict(COCO) if card == "coco" else {}
    values: dict[str, Any] = {}
    if is_small(family, tier):
        knobs |= SMALL | (SHAPES if family == "shapes" else LAB)
        knobs |= SMOKE if family == "shapes" and tier == "smoke" else {}
        values["cam_threshold"] = 0.5
    else:
        values["card_iterations"] = knobs["card_iterations"] = STEPS[card][0]
    return recipe_preset(family, tier, knobs, steps=STEPS, smoke_iterations=60, shapes_smoke=80, **values)
