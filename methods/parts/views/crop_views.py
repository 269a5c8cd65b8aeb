"""Training views of the single-stage ViT methods: independent random crops with flip and colour jitter
(fsr.md 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.api.dataset import Sample
from harness.api.method import Views
from methods.parts.knobs import ViewKnobs
from methods.parts.views.augment import (
    Window,
    crop_window,
    hflip,
    label_tensor,
    resize_label,
    resize_sparse_label,
    resized_window,
    to_tensor_normalised,
)
from methods.parts.views.colour import Colours, draw_jitter, recolour
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

    @property
    def most_blur(self) -> float:
        """The largest standard deviation of a blur that `colours` draws, pixels; for subclasses."""
        return 0.0

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
        size = image_HW3.shape[0], image_HW3.shape[1]
        window, mirrored = self.geometry(size, rng)
        image_HW3, label_HW = resized_window(image_HW3, label_HW, window, self.crop, self.follow)
        if mirrored:
            image_HW3, label_HW = hflip(image_HW3, label_HW)
        return self.normalised(self.recoloured(image_HW3, rng), rng), label_HW, self.warp(size, window, mirrored)

    @property
    def follow(self) -> Callable[[NDArray[np.uint8] | None, tuple[int, int]], NDArray[np.uint8] | None]:
        """How labels are resized."""
        return resize_sparse_label if self.keep_labels else resize_label

    def geometry(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[Window, bool]:
        """The window of an image of `size` (height, width), and whether it is mirrored."""
        window = crop_window(*size, (self.knobs.crop_area_min, CROP_AREA_MAX), CROP_ASPECT, rng)
        return window, rng.random() < self.knobs.flip_probability

    def cut_label(self, label_HW: NDArray[np.uint8] | None, window: Window, mirrored: bool) -> NDArray[np.uint8] | None:
        """The label map (crop,crop) of such a view."""
        top, left, height, width = window
        cut = None if label_HW is None else label_HW[top : top + height, left : left + width]
        cut = self.follow(cut, (self.crop, self.crop))
        return cut[:, ::-1] if cut is not None and mirrored else cut

    def warp(self, size: tuple[int, int], window: Window, mirrored: bool) -> Warp:
        """Where such a view lies in its image."""
        warp = Warp.whole(size).cut(*window).resized((self.crop, self.crop))
        return warp.mirrored() if mirrored else warp

    def recoloured(self, image_HW3: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The cropped image uint8 (crop,crop,3) with, at `jitter_probability`, other colours; for subclasses."""
        return recolour(image_HW3, self.colours(rng))

    def colours(self, rng: np.random.Generator) -> Colours:
        """The colours of a view; for subclasses whose colours are no more than `Colours` says."""
        k = self.knobs
        if rng.random() >= k.jitter_probability:
            return Colours()
        return Colours(draw_jitter(k.jitter_brightness, k.jitter_contrast, k.jitter_saturation, k.jitter_hue, rng))

    def normalised(self, image_HW3: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        """The network's input float32 (3,crop,crop) of a finished view; for subclasses."""
        return to_tensor_normalised(image_HW3, self.mean, self.std)
