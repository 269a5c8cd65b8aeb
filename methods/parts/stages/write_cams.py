"""The stage `write-cams`: class maps of an image over scales and mirrors, as the network made them (irn.md 2.2).

Axes: C classes, L maps of an image (C, or C + 1 with the background's first), n maps that are kept, H W pixels, h w
cells of a scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.images import ImageInfo, ImageInput, Maps
from harness.api.method import Method
from harness.api.spec import MethodConfig
from methods.parts.bases.stage_cam import StageCam
from methods.parts.ops.map_fusion import mirrored_pairs, mirrored_sum, rescaled

VERSION = 1
"""Raised when other maps are written."""
NAME = "cam"
"""Of the maps in a file."""


class CamWriter:
    """Maps of an image, not normalised, at the network's stride, of each scale: those of the classes that its tags
    name, behind that of the background where the network makes one.

    A `StageCam` sees images at their own size over its knob `cam_scales`, but not larger than it was trained on (knob
    `long_max` of its crop: the card's 640 pixels, which no image of VOC or COCO exceeds). Any other method sees squares
    of its training size, as it is scored, over `scales`, by the ReLU of its `cam_logits` (A3). The maps of a plug-in
    that trains its base (`network.base`) are those of the base.
    """

    def __init__(self, network: Method, info: ImageInfo, scales: Sequence[float] = (1.0,)):
        self.network, self.info, self.scales = getattr(network, "base", network), info, tuple(scales)

    def __call__(self, image: ImageInput) -> Maps:
        """The maps of one image."""
        pixels_13HW = normalised(image, self.network, self.info.device)
        tags_C = torch.from_numpy(image.tags_C).to(self.info.device)
        maps = self._maps(pixels_13HW, tags_C)
        first = int(maps[0].shape[1]) - len(tags_C)
        index_n = torch.cat([torch.arange(first, device=tags_C.device), torch.nonzero(tags_C > 0)[:, 0] + first])
        kept = [one[0, index_n].half().cpu().numpy() for one in maps]
        grain = self.network.grain if isinstance(self.network, StageCam) else 1
        return Maps((index_n - first).cpu().numpy().astype(np.int16), {NAME: kept}, grain=grain)

    def _maps(self, pixels_13HW: Tensor, tags_C: Tensor) -> list[Tensor]:
        if isinstance(self.network, StageCam):
            largest = self.network.config.long_max * self.info.crop
            share = min(1.0, largest / max(pixels_13HW.shape[2:]))
            return self.network.scale_maps(rescaled(pixels_13HW, share), tags_C[None])
        size = (self.info.crop, self.info.crop)
        square = F.interpolate(pixels_13HW, size, mode="bilinear", align_corners=False, antialias=True)
        pairs = mirrored_pairs(square, self.scales)
        return [mirrored_sum(self.network.cam_logits(pair.flatten(0, 1)).unflatten(0, (2, -1))) for pair in pairs]


def normalised(image: ImageInput, network: Method, device: str) -> Tensor:
    """An image as a network sees it: (1,3,H,W) float32 on the device."""
    mean, std = network.normalisation()
    # Datasets hand out read-only arrays.
    pixels_13HW = torch.from_numpy(image.image_HW3.copy()).to(device).permute(2, 0, 1)[None].float() / 255
    return (pixels_13HW - pixels_13HW.new_tensor(mean).view(3, 1, 1)) / pixels_13HW.new_tensor(std).view(3, 1, 1)


def writer(config: MethodConfig, info: ImageInfo) -> CamWriter:
    """Worker of `write-cams` for the one network that the stage names; `cam_scales` is the config's where it has it.

    Raises TypeError for a network that makes no CAMs.
    """
    (network,) = info.networks.values()
    return CamWriter(network, info, getattr(config, "cam_scales", (1.0,)))
