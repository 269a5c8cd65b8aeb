"""What stages that go image by image hand on: score maps, and what a worker is given of one image.

Axes: C foreground classes, n classes that occur, K labels, H W pixels of the image, h w cells of a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BACKGROUND = -1
"""In `Maps.classes`: the map of background itself, of methods that have one."""


@dataclass(frozen=True)
class Maps:
    """Score maps of the classes that occur in an image, as the network made them: at its stride, not normalised."""

    classes: NDArray[np.int16]
    """(n,): foreground classes from 0, and `BACKGROUND`."""
    scales: Mapping[str, Sequence[NDArray[np.floating]]]
    """By name (`cam`, `pseudo`): the maps (n,h,w), at least 0, of each scale."""
    fused: bool = True
    """Whether reading sums the scales at the size that is asked for and divides each class by its own maximum (plus
    1e-5), as the field does; False for maps of one scale in [0,1] already."""
    grain: int = 1
    """Maps cover the image's size rounded up to multiples of this, pixels, as those of a network that pads its images
    do: reading resizes them to that and cuts it."""


def covered(size: tuple[int, int], grain: int) -> tuple[int, int]:
    """An image's size (H,W) rounded up to multiples of `grain` pixels."""
    return -(-size[0] // grain) * grain, -(-size[1] // grain) * grain


@dataclass(frozen=True)
class ImageInput:
    """One image, and what earlier stages left of it."""

    image_id: str
    image_HW3: NDArray[np.uint8]
    tags_C: NDArray[np.float32]
    """1.0 for each foreground class that the image holds."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """By artefact: `Maps`, a label map uint8 (H,W), a vector float32 (n,)."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What a worker is built for."""

    num_classes: int
    has_background: bool
    crop: int
    """Side of the training input, pixels."""
    variant: str
    targets: tuple[str, ...] = ()
    """Targets that are scored from what the stage writes."""
    networks: Mapping[str, Any] = field(default_factory=dict)
    """Trained `Method`s by name, on the worker's device, in eval mode."""
    device: str = "cpu"
    crf: Any = None
    """The dense CRF that `PerImage.crf` names: a frozen dataclass of its numbers, with `relabel(image, index, labels)`
    where it starts from hard labels; None where the stage names none."""

    @property
    def num_labels(self) -> int:
        """K: label values."""
        return self.num_classes + int(self.has_background)


Written = Maps | NDArray[np.uint8] | NDArray[np.float32]
"""What a worker makes of an image: score maps, a label map (H,W), or a vector (n,)."""
Worker = Callable[[ImageInput], Written]
"""Made by the function that `PerImage.does` names. Runs without gradient, in the run's precision. One that is faster on
several images has an attribute `batch`, how many, and a method `many`, from a list of inputs to a list of outputs."""
