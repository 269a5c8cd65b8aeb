"""Workers of stages that every method shares, by the name that `PerImage.does` gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from harness.api.images import ImageInfo, ImageInput, Maps
from harness.api.method import Method
from harness.engine.inference.passes import normalised, resized
from harness.engine.inference.predictions import CHUNK, MAPS, score_maps


class PredictedMaps:
    """The CAM and pseudo-mask scores that a network predicts of images resized to its training size."""

    batch = CHUNK

    def __init__(self, info: ImageInfo, method: Method, targets: frozenset[str]) -> None:
        self.info, self.method, self.targets = info, method, targets

    def many(self, images: Sequence[ImageInput]) -> list[Maps]:
        """The maps of a batch of images, of the classes that their tags name."""
        side = self.info.crop
        views = normalised([resized(i.image_HW3, (side, side)) for i in images], self.method, self.info.device)
        tags = torch.from_numpy(np.stack([i.tags_C for i in images])).to(self.info.device)
        return score_maps(self.method.predict(views, tags, want=self.targets), tags)

    def __call__(self, image: ImageInput) -> Maps:
        """The maps of one image."""
        return self.many([image])[0]


def predicted_maps(config: object, info: ImageInfo) -> PredictedMaps:
    """Worker of the stage `write-cams` of single-stage methods: the maps that its network predicts."""
    (method,) = info.networks.values()
    return PredictedMaps(info, method, frozenset(info.targets) & frozenset(MAPS))
