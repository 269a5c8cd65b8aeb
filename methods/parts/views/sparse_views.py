"""Training views of the methods of sparse labels (agmm.md 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.dataset import Sample
from harness.api.method import Views
from harness.api.vocabulary import IGNORE
from methods.parts.views.augment import (
    Crop,
    crop_window,
    hflip,
    label_tensor,
    resize,
    resize_label,
    resize_sparse_label,
    resized_window,
)
from methods.parts.views.colour import gaussian_blur, grayscale
from methods.parts.views.crop_views import CROP_AREA_MAX, CROP_ASPECT, CropViews
from methods.parts.views.sparse_knobs import SparseViewKnobs
from methods.parts.views.warp import Warp

VERSION = 1
"""Raised when a view comes out differently."""
BLUR_RADIUS_MIN = 0.1
SHIFT = 10.0
"""Most that is added to all levels."""
TAGS = "tags_K"
"""Name of the vector of labels, background included, that the sparse labels of the whole image hold (agmm.md 2.1).

Not `Batch.tags_BK`: its tags may come from masks, and name classes that nobody labelled."""
Pixels = NDArray[np.uint8]


def long_side_crop(
    image: Pixels,
    label: Pixels | None,
    rng: np.random.Generator,
    size: int,
    low: float,
    high: float,
    *,
    keep_labels: bool = False,
) -> Crop:
    """The image with a long side drawn from the whole numbers in [low L, high L], L its own, cut to `size` pixels.

    What is smaller is padded right and below: 0 in RGB, 255 in the label, False in the content. Bilinear; the label
    follows by nearest neighbour, or with `keep_labels` without losing a labelled pixel (agmm.md 2.1, 6).
    Raises ValueError where `low` is not above 0 or above `high`.
    """
    if not 0.0 < low <= high:
        raise ValueError(f"scales {low} to {high}: 0 < low <= high expected")
    whole = int(image.shape[0]), int(image.shape[1])
    longest = max(whole)
    drawn = int(rng.integers(max(1, int(low * longest)), max(1, int(high * longest)) + 1))
    height, width = (drawn if side == longest else max(1, int(side * drawn / longest + 0.5)) for side in whole)
    follow = resize_sparse_label if keep_labels else resize_label
    image, label = resize(image, (height, width), "bilinear"), follow(label, (height, width))
    top, left = (int(rng.integers(0, max(side - size, 0) + 1)) for side in (height, width))
    here = slice(top, top + size), slice(left, left + size)
    inside = slice(0, min(height, size)), slice(0, min(width, size))
    out = np.zeros((size, size, 3), np.uint8)
    out[inside] = image[here]
    content = np.zeros((size, size), np.bool_)
    content[inside] = True
    label_out = None
    if label is not None:
        label_out = np.full((size, size), IGNORE, np.uint8)
        label_out[inside] = label[here]
    warp = Warp.whole(whole).resized((height, width)).cut(top, left, size, size)
    return Crop(out, label_out, (0, 0, inside[0].stop, inside[1].stop), content, warp)


@dataclass(frozen=True)
class SparseViews(CropViews):
    """The same crop under each name: the first coloured, the others as photographed; its labels and content; and the
    labels that the whole image has, as a vector `tags_K` of `num_labels` numbers in {0,1}.

    With geometry area the first view is that of `CropViews`, draw for draw.
    """

    knobs: SparseViewKnobs
    num_labels: int = 0
    """K; 0 leaves `tags_K` out."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The views of one image, float32 (3,crop,crop), label int64 and content bool (crop,crop)."""
        image, label, content, warp = self._cropped(sample, rng)
        if rng.random() < self.knobs.flip_probability:
            image, label = hflip(image, label)
            content = None if content is None else content[:, ::-1].copy()
            warp = warp.mirrored()
        plain = image
        views: dict[str, Tensor] = {}
        for name in self.names:
            image = plain if views else self.recoloured(plain, rng)
            views[name] = self.normalised(image, rng)
        extra = warp(sample.extra)
        if self.num_labels:
            extra[TAGS] = labels_held(sample.label_HW, self.num_labels)
        return Views(views, label_tensor(label), None if content is None else torch.from_numpy(content), extra)

    def _cropped(
        self, sample: Sample, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels | None, NDArray[np.bool_] | None, Warp]:
        k, image, label = self.knobs, sample.image_HW3, sample.label_HW
        if k.geometry == "area":
            follow = resize_sparse_label if self.keep_labels else resize_label
            height, width = image.shape[:2]
            window = crop_window(height, width, (k.crop_area_min, CROP_AREA_MAX), CROP_ASPECT, rng)
            cut = resized_window(image, label, window, self.crop, follow)
            return *cut, None, Warp.whole((height, width)).cut(*window).resized((self.crop, self.crop))
        crop = long_side_crop(image, label, rng, self.crop, k.scale_min, k.scale_max, keep_labels=self.keep_labels)
        return crop.image_HW3, crop.label_HW, crop.content_HW, crop.warp

    def recoloured(self, image_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """Jitter, grey, blur and a shift of all levels, each with its probability; the image itself without
        `strong_colour`."""
        k = self.knobs
        if not k.strong_colour:
            return image_HW3
        image_HW3 = super().recoloured(image_HW3, rng)
        if rng.random() < k.grey_probability:
            image_HW3 = grayscale(image_HW3)
        if rng.random() < k.blur_probability:
            image_HW3 = gaussian_blur(image_HW3, (BLUR_RADIUS_MIN, k.blur_radius_max), rng)
        if rng.random() < k.shift_probability:
            shifted = np.rint(image_HW3.astype(np.float32) + np.float32(rng.uniform(-SHIFT, SHIFT)))
            image_HW3 = shifted.clip(0, 255).astype(np.uint8)
        return image_HW3


def labels_held(label_HW: Pixels | None, num_labels: int) -> Tensor:
    """Which of the labels 0..K-1 a map holds: float32 (K,) in {0,1}; all other values are unlabelled."""
    held = np.zeros(num_labels, np.float32)
    if label_HW is not None:
        values = np.flatnonzero(np.bincount(label_HW.ravel(), minlength=num_labels)[:num_labels])
        held[values] = 1.0
    return torch.from_numpy(held)
