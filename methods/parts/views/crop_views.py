"""Training views of the single-stage ViT methods: independent random crops with flip and colour jitter
(fsr.md 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.api.dataset import Sample
from harness.api.method import Views
from methods.parts.knobs import ViewKnobs
from methods.parts.views.augment import (
    crop_window,
    hflip,
    label_tensor,
    resize_label,
    resize_sparse_label,
    resized_window,
    to_tensor_normalised,
)
from methods.parts.views.colour import color_jitter
from methods.parts.views.warp import Warp

VERSION = 1
"""Raised when a view comes out differently."""
CROP_AREA_MAX = 1.0
CROP_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class CropViews:
    """One independent draw of the same pipeline per name; labels and `extra` follow the first one. No padding.

    Random resized crop to `crop` pixels (bicubic) -> mirror -> with some probability colour jitter ->
    normalise.
    """

    names: tuple[str, ...]
    crop: int
    knobs: ViewKnobs
    mean: Sequence[float]
    std: Sequence[float]
    keep_labels: bool = False
    """Labelled pixels survive a view that shrinks them, for labels of a few pixels an image."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The views of one image, float32 (3,crop,crop), and its label int64 (crop,crop) in the first one."""
        views: dict[str, Tensor] = {}
        label_HW: Tensor | None = None
        extra: dict[str, Tensor] = {}
        for name in self.names:
            source_label = sample.label_HW if not views else None
            view, label, warp = self._view(sample.image_HW3, source_label, rng)
            label_HW = label_tensor(label) if label is not None else label_HW
            extra = extra if views else warp(sample.extra)
            views[name] = view
        return Views(views, label_HW, extra=extra)

    def _view(
        self, image_HW3: NDArray[np.uint8], label_HW: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.uint8] | None, Warp]:
        k = self.knobs
        follow = resize_sparse_label if self.keep_labels else resize_label
        height, width = image_HW3.shape[:2]
        window = crop_window(height, width, (k.crop_area_min, CROP_AREA_MAX), CROP_ASPECT, rng)
        image_HW3, label_HW = resized_window(image_HW3, label_HW, window, self.crop, follow)
        warp = Warp.whole((height, width)).cut(*window).resized((self.crop, self.crop))
        if rng.random() < k.flip_probability:
            image_HW3, label_HW = hflip(image_HW3, label_HW)
            warp = warp.mirrored()
        return self.normalised(self.recoloured(image_HW3, rng), rng), label_HW, warp

    def recoloured(self, image_HW3: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The cropped image uint8 (crop,crop,3) with, at `jitter_probability`, other colours; for subclasses."""
        k = self.knobs
        if rng.random() >= k.jitter_probability:
            return image_HW3
        return color_jitter(image_HW3, k.jitter_brightness, k.jitter_contrast, k.jitter_saturation, k.jitter_hue, rng)

    def normalised(self, image_HW3: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        """The network's input float32 (3,crop,crop) of a finished view; for subclasses."""
        return to_tensor_normalised(image_HW3, self.mean, self.std)
