"""The stage `refine`: confident labels of an image from its maps, which a boundary network learns from (irn.md 2.3,
sipe.md 2.5); and how written maps are read. Axes: n maps of an image, h w cells of a scale, H W pixels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.images import ImageInfo, ImageInput
from methods.parts.bases.map_rules import MapRules
from methods.parts.ops.confident_labels import LabelCrf
from methods.parts.stages.write_cams import NAME

VERSION = 1
"""Raised when other labels are written."""
CAMS = "cams"
"""Name of the artefact that holds maps."""


def maps_of(image: ImageInput, device: str) -> tuple[list[Tensor], Tensor]:
    """The written maps (n,h,w) of every scale, and the label values int64 (n) that they are of: 0 is background."""
    written = image.inputs[CAMS]
    maps = [torch.from_numpy(one).to(device).float() for one in written.scales[NAME]]
    return maps, torch.from_numpy(written.classes.astype(np.int64) + 1).to(device)


def rules_of(rules: MapRules, image: ImageInput) -> MapRules:
    """The rules of an image's maps, by what these cover."""
    return dataclasses.replace(rules, grain=image.inputs[CAMS].grain)


def label_crf(rules: MapRules, crf: Any) -> LabelCrf | None:
    """The dense CRF of hard labels that the harness gives a stage (`ImageInfo.crf`), with the knobs' numbers; None
    where there is none, or the knob `label_crf` is off."""
    if crf is None or not rules.config.label_crf:
        return None
    found: LabelCrf = dataclasses.replace(crf, **rules.crf_numbers)
    return found


class LabelWorker:
    """Confident labels uint8 (H,W) of an image, 255 where its two background scores disagree."""

    def __init__(self, rules: MapRules, info: ImageInfo):
        self.rules, self.info = rules, info
        self.crf = label_crf(rules, info.crf)

    def __call__(self, image: ImageInput) -> NDArray[np.uint8]:
        """The labels of one image."""
        maps, labels_n = maps_of(image, self.info.device)
        pixels = image.image_HW3
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        found = rules_of(self.rules, image).confident(maps, labels_n, size, image=pixels, crf=self.crf)
        return found.to(torch.uint8).cpu().numpy()
