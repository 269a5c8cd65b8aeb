"""The stage `masks`: pseudo masks of images from their written maps, by the knob `refine` (irn.md 2.6, sipe.md 2.5).

Axes: n maps of an image, h w cells of stride 4, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.images import ImageInfo, ImageInput
from methods.parts.bases.boundary_trainer import BoundaryTrainer
from methods.parts.bases.map_rules import MapRules
from methods.parts.ops.pseudo import refined_scores
from methods.parts.stages.refine import label_crf, maps_of, rules_of
from methods.parts.stages.write_cams import normalised

VERSION = 1
"""Raised when other masks are written."""


class MaskWorker:
    """The pseudo mask uint8 (H,W) of an image.

    `refine=irn`: the random walk along the boundaries that the one network of the stage sees, then the rule of walked
    maps. `none`: the rule of plain maps. `par`: the same after PAR over the image's colours (A2). `crf`: confident
    labels, 255 where unsure.
    """

    batch = 16

    def __init__(self, rules: MapRules, info: ImageInfo):
        self.rules, self.info = rules, info
        self.refine = rules.config.refine
        self.crf = label_crf(rules, info.crf)
        self.boundary: BoundaryTrainer | None = None
        if self.refine == "irn":
            (self.boundary,) = info.networks.values()

    @torch.no_grad()
    def many(self, images: Sequence[ImageInput]) -> list[NDArray[np.uint8]]:
        """The masks of several images: networks see them one by one, so that no mask depends on the others; walks,
        which are thousands of small steps, are made together."""
        found = self._plain(images) if self.boundary is None else self._walked(images, self.boundary)
        return [one.to(torch.uint8).cpu().numpy() for one in found]

    def __call__(self, image: ImageInput) -> NDArray[np.uint8]:
        """The mask of one image."""
        return self.many([image])[0]

    def _walked(self, images: Sequence[ImageInput], boundary: BoundaryTrainer) -> list[Tensor]:
        rules, device, sizes = self.rules, self.info.device, [_size(one) for one in images]
        maps, labels = zip(*(maps_of(one, device) for one in images), strict=True)
        edges = [boundary.boundaries(normalised(one, boundary, device))[0].float() for one in images]
        walked = rules.walks(maps, edges, sizes)
        return [rules.mask(*one) for one in zip(walked, labels, sizes, strict=True)]

    def _plain(self, images: Sequence[ImageInput]) -> list[Tensor]:
        config, device = self.rules.config, self.info.device
        found = []
        for image in images:
            rules = rules_of(self.rules, image)
            maps, labels_n = maps_of(image, device)
            pixels, size = image.image_HW3, _size(image)
            if self.refine == "crf":
                found.append(rules.confident(maps, labels_n, size, image=pixels, crf=self.crf))
                continue
            full_nHW = rules.full(maps, size)
            if self.refine == "par" and len(full_nHW):
                image_13HW = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1)[None]
                how = config.par_iterations, config.par_dilations
                full_nHW = refined_scores(image_13HW, full_nHW[None], None, *how)[0]
            found.append(rules.decided(full_nHW, labels_n))
        return found


def _size(image: ImageInput) -> tuple[int, int]:
    return int(image.image_HW3.shape[0]), int(image.image_HW3.shape[1])
