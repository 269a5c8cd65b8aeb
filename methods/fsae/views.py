"""The strong view beside what the base sees (fsae.md 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.api.dataset import Sample
from harness.api.method import Transform, Views
from methods.fsae.config import FsaeConfig
from methods.parts.views.augment import to_tensor_normalised
from methods.parts.views.colour import color_jitter
from methods.parts.views.strong import strong_view

STRONG = "fsae_strong"
"""Name of the strong view."""


@dataclass(frozen=True)
class StrongViews:
    """The base's views of an image, and its first one again in strong colours: `fsae_strong`, float32 (3,H,W).

    A base hands out finished views, so the strong one takes over geometry, padding and colours of the first and jitters
    anew. The base draws first: its views are those that it has without the plug-in.
    """

    base: Transform
    knobs: FsaeConfig
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The views of one image."""
        views, k = self.base(sample, rng), self.knobs
        image = pixels_of(next(iter(views.views.values())), self.mean, self.std)
        image = color_jitter(image, k.jitter_brightness, k.jitter_contrast, k.jitter_saturation, k.jitter_hue, rng)
        image = strong_view(image, rng, n=k.n_strong_augs, blur=k.blur)
        return replace(views, views={**views.views, STRONG: to_tensor_normalised(image, self.mean, self.std)})


def pixels_of(view_3HW: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """The uint8 image (H,W,3) that was normalised: exactly, as its levels lie further apart than round-off."""
    scale, shift = (255 * np.asarray(values, np.float32) for values in (std, mean))
    return (view_3HW.permute(1, 2, 0).numpy() * scale + shift).round().clip(0, 255).astype(np.uint8)
