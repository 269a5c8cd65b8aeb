"""What BRNF's stages do image by image: maps of its network with something added to them, confident labels, masks
(brnf.md 4). Axes: K labels with background as channel 0, n of them that an image has, h w cells of a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.images import BACKGROUND, ImageInfo, ImageInput, Maps
from methods.brnf.final import added_maps
from methods.brnf.knobs import BrnfConfig
from methods.brnf.method import Brnf
from methods.parts.bases.self_background import SelfBackgroundRules
from methods.parts.ops.map_fusion import fused_maps, mirrored_pairs, rescaled
from methods.parts.stages.masks import MaskWorker
from methods.parts.stages.refine import LabelWorker
from methods.parts.stages.write_cams import NAME, normalised


@dataclass(frozen=True)
class BrnfRules(SelfBackgroundRules):
    """What BRNF makes of its maps: as SIPE (brnf.md 4)."""

    config: BrnfConfig

    @property
    def label_factor(self) -> float:
        return self.config.label_factor


class FinalMaps:
    """Prototype CAMs of every scale of an image, and behind them the map that the knob `final` names, at `final_weight`
    times their height: sums of scales are what is read."""

    def __init__(self, config: BrnfConfig, info: ImageInfo):
        self.config, self.info = config, info
        (self.network,) = info.networks.values()
        assert isinstance(self.network, Brnf)

    @torch.no_grad()
    def __call__(self, image: ImageInput) -> Maps:
        """The maps of one image: background and the classes of its tags."""
        tags_C = torch.from_numpy(image.tags_C).to(self.info.device)
        pixels_13HW = normalised(image, self.network, self.info.device)
        # Not larger than the network was trained on, as every writer of maps has it.
        largest = self.network.config.long_max * self.info.crop
        pixels_13HW = rescaled(pixels_13HW, min(1.0, largest / max(pixels_13HW.shape[2:])))
        index_n = torch.cat([torch.zeros(1, dtype=torch.int64), torch.nonzero(tags_C.cpu() > 0)[:, 0] + 1])
        maps, whole = [], None
        scales = self.config.cam_scales
        for scale, pair_213HW in zip(scales, mirrored_pairs(pixels_13HW, scales), strict=True):
            pair = self.network.net.maps(pair_213HW.flatten(0, 1))
            whole = pair if scale == 1 else whole
            maps.append(self.network.located(pair, tags_C[None])[0, index_n])
        if whole is None:
            whole = self.network.net.maps(torch.cat([pixels_13HW, pixels_13HW.flip(-1)]))
        grid = (max(int(m.shape[1]) for m in maps), max(int(m.shape[2]) for m in maps))
        total_nhw = sum(F.interpolate(m[None].float(), grid, mode="bilinear", align_corners=False)[0] for m in maps)
        assert isinstance(total_nhw, Tensor)
        seeds = next(iter(image.inputs.values()), None)
        added_nhw = added_maps(self.network, whole, tags_C[None], None if seeds is None else self._seed(seeds))
        scaled = F.interpolate(added_nhw[None, index_n], grid, mode="bilinear", align_corners=False)[0]
        maps.append(self.config.final_weight * total_nhw.amax((1, 2), keepdim=True) * scaled)
        kept = [one.half().cpu().numpy() for one in maps]
        return Maps((index_n.numpy() - 1).astype(np.int16), {NAME: kept})

    def _seed(self, written: Maps) -> Tensor:
        """The base's maps (C,h,w) in [0,1], absent classes 0."""
        scales = next(iter(written.scales.values()))
        front = np.flatnonzero(written.classes != BACKGROUND)
        size = max(((int(m.shape[1]), int(m.shape[2])) for m in scales), default=(1, 1))
        found = torch.zeros(self.info.num_classes, *size)
        if len(front):
            fused = fused_maps([torch.from_numpy(np.asarray(m, np.float32)) for m in scales], size)
            found[torch.from_numpy(written.classes[front].astype(np.int64))] = fused[torch.from_numpy(front)]
        return found.to(self.info.device)


def writer(config: BrnfConfig, info: ImageInfo) -> FinalMaps:
    """Worker of the stage `write-cams`."""
    return FinalMaps(config, info)


def labels(config: BrnfConfig, info: ImageInfo) -> LabelWorker:
    """Worker of the stage `refine`."""
    return LabelWorker(BrnfRules(config, info.crop), info)


def masks(config: BrnfConfig, info: ImageInfo) -> MaskWorker:
    """Worker of the stage `masks`."""
    return MaskWorker(BrnfRules(config, info.crop), info)
