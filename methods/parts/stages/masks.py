"""The stage `masks`: pseudo masks of images from their written maps, by the knob `refine` (irn.md 2.6, sipe.md 2.5).

Axes: n maps of an image, h w cells of stride 4, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from harness.api.images import ImageInfo, ImageInput
from methods.parts.bases.boundary_trainer import BoundaryTrainer
from methods.parts.bases.map_rules import MapRules
from methods.parts.ops.pseudo import refined_scores
from methods.parts.stages.refine import label_crf, maps_of
from methods.parts.stages.write_cams import normalised

VERSION = 1
"""Raised when other masks are written."""


class MaskWorker:
    """The pseudo mask uint8 (H,W) of an image.

    `refine=irn`: the random walk along the boundaries that the one network of the stage sees, then the rule of walked
    maps. `none`: the rule of plain maps. `par`: the same after PAR over the image's colours (A2). `crf`: confident
    labels, 255 where unsure.
    """

    def __init__(self, rules: MapRules, info: ImageInfo):
        self.rules, self.info = rules, info
        self.refine = rules.config.refine
        self.crf = label_crf(rules, info.crf)
        self.boundary: BoundaryTrainer | None = None
        if self.refine == "irn":
            (self.boundary,) = info.networks.values()

    @torch.no_grad()
    def __call__(self, image: ImageInput) -> NDArray[np.uint8]:
        """The mask of one image."""
        rules, pixels, device = self.rules, image.image_HW3, self.info.device
        maps, labels_n = maps_of(image, device)
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        if self.boundary is not None:
            edge_hw = self.boundary.boundaries(normalised(image, self.boundary, device))[0].float()
            found = rules.mask(rules.walk(maps, edge_hw, size), labels_n, size)
        elif self.refine == "crf":
            found = rules.confident(maps, labels_n, size, image=pixels, crf=self.crf)
        else:
            full_nHW = rules.full(maps, size)
            if self.refine == "par" and len(full_nHW):
                image_13HW = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1)[None]
                config = rules.config
                full_nHW = refined_scores(
                    image_13HW, full_nHW[None], None, config.par_iterations, config.par_dilations
                )[0]
            found = rules.decided(full_nHW, labels_n)
        return found.to(torch.uint8).cpu().numpy()
