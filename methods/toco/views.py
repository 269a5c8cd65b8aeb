"""ToCo's views of one image: the network's input, the image that local crops are cut from, and a second global view
(toco.md 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.dataset import Sample
from harness.api.method import Views
from methods.parts.views.augment import hflip, random_resized_crop, scale_pad_crop, to_tensor_normalised
from methods.parts.views.colour import color_jitter, gaussian_blur, grayscale, solarize
from methods.parts.views.crop_views import CROP_AREA_MAX, CROP_ASPECT, CropViews
from methods.toco.config import TocoConfig

CARD_SIDE = 500 / 448
"""Longer side of the card's images (VOC) in its crops."""


@dataclass(frozen=True)
class TocoViews(CropViews):
    """`view1` and, where `names` has them, `view2` and `local`, float32 (3,crop,crop); content of view 1 (crop,crop).

    View 1 and the local source are the same crop (A13), mirrored alike and coloured apart. There are no labels.
    """

    knobs: TocoConfig

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The views of one image."""
        k, image = self.knobs, sample.image_HW3
        unit = self.crop * CARD_SIDE / max(image.shape[:2]) if k.scale_to_crop else 1.0
        scale = (k.scale_min * unit, k.scale_max * unit)
        crop = scale_pad_crop(image, None, self.crop, rng, scale=scale, flip=k.flip_probability)
        mirrored, local_mirrored = rng.random(2) < k.flip_probability
        content_HW = crop.content_HW
        if not k.separate_flips:
            local_mirrored = mirrored
            content_HW = content_HW[:, ::-1] if mirrored else content_HW
        views = {"view1": self._coloured(_turned(crop.image_HW3, mirrored), k.blur_view1, rng)}
        if "view2" in self.names:
            views["local"] = self._coloured(_turned(crop.image_HW3, local_mirrored), k.blur_local, rng)
            second, _ = random_resized_crop(image, None, self.crop, (k.crop_area_min, CROP_AREA_MAX), CROP_ASPECT, rng)
            second = _turned(second, rng.random() < k.flip_probability)
            views["view2"] = self._coloured(second, k.blur_view2, rng, k.solarise_probability)
        return Views(views, None, torch.from_numpy(content_HW.copy()))

    def _coloured(
        self, image: NDArray[np.uint8], blur: float, rng: np.random.Generator, solarise: float = 0.0
    ) -> Tensor:
        """Jitter, grey, blur, solarisation, each with its probability, and normalisation."""
        k = self.knobs
        if rng.random() < k.jitter_probability:
            image = color_jitter(image, k.jitter_brightness, k.jitter_contrast, k.jitter_saturation, k.jitter_hue, rng)
        if rng.random() < k.grey_probability:
            image = grayscale(image)
        if rng.random() < blur:
            image = gaussian_blur(image, (k.blur_radius_min, k.blur_radius_max), rng)
        if rng.random() < solarise:
            image = solarize(image)
        return to_tensor_normalised(image, self.mean, self.std)


def _turned(image: NDArray[np.uint8], mirrored: bool) -> NDArray[np.uint8]:
    return hflip(image, None)[0] if mirrored else image
