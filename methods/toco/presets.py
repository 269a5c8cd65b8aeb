"""Presets of `toco` by dataset family, tier and variant; no score has been recorded for them yet."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset
from methods.parts.sizes import LATTICE_W_REG, card_family, card_knobs, sized_preset, small_knobs

RELEASED: dict[str, Any] = {
    "imagenet_normalisation": True,
    "separate_flips": True,
    "literal_token_box": True,
    "kaiming_decoder": False,
    "idle_steps": True,
    "w_reg": LATTICE_W_REG,
}
"""toco.md section 7. The other quirks are the same numbers at more cost, or those of both variants."""
COCO: dict[str, Any] = {
    "ptc_start": 12000 / 80000,
    "ctc_start": 12000 / 80000,
    "top_start": 12000 / 80000,
    "seg_start": 8000 / 80000,
    "ctc_tau": 1.0,
}
CARD_BATCH = {"voc": 4, "coco": 8}
"""Images of 2 and of 4 GPUs with 2 each (toco.md 3)."""
LAB_VIEWS: dict[str, Any] = {"scale_to_crop": True, "blur_radius_max": 0.7}
"""The card's views on smaller crops: the same share of the image, and of its detail."""
SHAPES: dict[str, Any] = {
    "head_lr_scale": 10.0,
    "w_ctc": 0.1,
    "ctc_start": 0.5,
    "scale_to_crop": True,
    "scale_min": 0.8,
    "scale_max": 1.3,
    "blur_radius_max": 0.5,
    "grey_probability": 0.0,
    "solarise_probability": 0.0,
}
"""A step costs two of `cam`'s, so its smoke run has fewer; colours and textures are cues on `shapes`. The contrast of
class tokens from the start, at the card's weight, costs half of the CAM's mIoU in so short a run."""


def preset(family: str, tier: str, variant: str) -> Preset:
    """The values of one dataset family, tier and variant (default or released)."""
    card = card_family(family)
    knobs: dict[str, Any] = {**card_knobs(family), **(COCO if card == "coco" else {})}
    small = small_knobs(family, tier, tags=True)
    if small:
        knobs |= {**small, **(SHAPES if family == "shapes" else LAB_VIEWS)}
        if card == "coco":
            # As long after the later start of segmentation as on the card.
            knobs["top_start"] = knobs["seg_start"] + COCO["top_start"] - COCO["seg_start"]
    if variant == "released":
        knobs |= RELEASED
    sized = sized_preset(family, tier, knobs, smoke_iterations=80, lab_iterations=300)
    if tier == "paper" and family != "shapes":
        inference = PROTOCOLS["toco-coco" if card == "coco" else "toco"]
        sized = dataclasses.replace(sized, batch=CARD_BATCH[card], inference=inference)
    return sized
