"""Knobs of the training views of methods that learn from sparse labels. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.inference import LARGEST_SCALE
from harness.api.spec import knob
from harness.errors import Problem
from methods.parts.knobs import ViewKnobs, between, one_of, positive

GEOMETRIES = ("long_side", "area")
PROBABILITIES = ("grey_probability", "blur_probability", "shift_probability")


@dataclass(frozen=True, kw_only=True)
class SparseViewKnobs(ViewKnobs):
    """The random crop of agmm.md 2.1, or that of fsr.md 2.1, and colours behind it."""

    geometry: str = knob(
        "long_side",
        "long_side: the image is rescaled, padded right and below, and a window is cut; area: a window of random area "
        "and aspect is resized, without padding, as in `pce`",
        unit="name",
        source="agmm.md 2.1; area: fsr.md 2.1",
    )
    scale_min: float = knob(0.5, "smallest factor of the long side", source="agmm.md 2.1, code")
    scale_max: float = knob(2.0, "largest factor of the long side", source="agmm.md 2.1, code")
    keep_labels: bool = knob(
        True,
        "labelled pixels survive a view that shrinks them; false: nearest neighbour may drop them, as published",
        unit="bool",
        source="agmm.md 6: nearest down-scaling deletes small clicks",
    )
    strong_colour: bool = knob(
        True, "the colour changes below; Cityscapes false", unit="bool", source="agmm.md 2.1, yaml"
    )
    jitter_brightness: float = knob(0.5, "brightness factor is drawn from 1 +- this", source="agmm.md 2.1, code")
    jitter_contrast: float = knob(0.5, "contrast factor is drawn from 1 +- this", source="agmm.md 2.1, code")
    jitter_saturation: float = knob(0.5, "saturation factor is drawn from 1 +- this", source="agmm.md 2.1, code")
    jitter_hue: float = knob(0.25, "hue shift is drawn from +- this", unit="turns", source="agmm.md 2.1, code")
    grey_probability: float = knob(0.1, "grey view", unit="probability", source="agmm.md 2.1, code")
    blur_probability: float = knob(0.5, "Gaussian blur", unit="probability", source="agmm.md 2.1, code")
    blur_radius_max: float = knob(
        2.0, "largest standard deviation of a blur, from 0.1 on", unit="px", source="agmm.md 2.1, code"
    )
    shift_probability: float = knob(
        0.5, "one number from +-10 is added to all levels", unit="probability", source="agmm.md 2.1, code"
    )

    def problems(self) -> list[Problem]:
        """Rules on the views."""
        found = [*super().problems(), *one_of("geometry", self.geometry, GEOMETRIES)]
        found += positive("scale_min", self.scale_min)
        found += between("scale_max", self.scale_max, 0, LARGEST_SCALE, open_low=True)
        if self.scale_min > self.scale_max:
            found.append(Problem("scale_min", f"{self.scale_min:g} is above scale_max", "scale_min <= scale_max"))
        found += between("blur_radius_max", self.blur_radius_max, 0.1, 100)
        for name in PROBABILITIES:
            found += between(name, getattr(self, name), 0, 1)
        return found
