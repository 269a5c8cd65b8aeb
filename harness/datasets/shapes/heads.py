"""Parts of `shapes` objects: the one striking piece at the front that tells a class from its sibling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.datasets.shapes.objects import (
    BOAT,
    BUS,
    CAR,
    CAT,
    COW,
    DOG,
    HORSE,
    TRAIN,
    Colour,
    Local,
    Mask,
)

RGB = tuple[int, int, int]
Layers = list[tuple[Mask, RGB]]
"""Masks with their colours, later ones over earlier ones; the part is the union."""


def centre(rng: np.random.Generator, k: int, t: float) -> tuple[float, float]:
    """Local (u,v) of the part's centre: jittered for animals, set by the half height `t` for vehicles."""
    if k in (COW, HORSE, CAT, DOG):
        return 1.02 + rng.uniform(-0.05, 0.08), -0.42 + rng.uniform(-0.15, 0.08)
    return {BOAT: (0.38, -t - 0.65), TRAIN: (1.12, 0.03), CAR: (0.98, 0.15 * t), BUS: (0.86, -0.55 * t)}[k]


def _cow(at: Local, hu: float, hv: float, t: float) -> Layers:
    face = at.E(hu, hv, 0.44, 0.40)
    ears = at.B(hu - 0.55, hu + 0.55, hv - 0.40, hv - 0.24)
    band = (face | ears) & (np.abs(at.u - np.float32(hu)) < 0.16)
    return [(face | ears, (238, 236, 230)), (band, (28, 26, 28)), (at.E(hu, hv + 0.22, 0.34, 0.17), (226, 140, 150))]


def _horse(at: Local, hu: float, hv: float, t: float) -> Layers:
    face = at.E(hu + 0.10, hv - 0.12, 0.34, 0.58)
    return [(face, (120, 62, 30)), (face & (np.sin(17 * (at.v - np.float32(hv))) > 0.1), (232, 176, 84))]


def _cat(at: Local, hu: float, hv: float, t: float) -> Layers:
    slope = np.float32(0.45) * (at.v - np.float32(hv - 0.78))
    ears = (np.abs(np.abs(at.u - np.float32(hu)) - np.float32(0.27)) < slope) & (at.v < hv)
    eyes = at.E(hu - 0.20, hv - 0.05, 0.14, 0.12) | at.E(hu + 0.20, hv - 0.05, 0.14, 0.12)
    return [
        (ears, (205, 130, 140)),
        (at.E(hu, hv, 0.46, 0.42), (92, 96, 108)),
        (eyes, (150, 235, 70)),
        (at.E(hu, hv + 0.22, 0.20, 0.12), (245, 225, 220)),
    ]


def _dog(at: Local, hu: float, hv: float, t: float) -> Layers:
    ears = at.E(hu - 0.45, hv + 0.02, 0.16, 0.42) | at.E(hu + 0.45, hv + 0.02, 0.16, 0.42)
    return [
        (at.E(hu, hv, 0.44, 0.44), (214, 170, 110)),
        (ears, (70, 40, 24)),
        (at.E(hu, hv + 0.26, 0.16, 0.22), (220, 50, 60)),
        (at.E(hu, hv + 0.02, 0.13, 0.10), (20, 18, 18)),
    ]


def _car(at: Local, hu: float, hv: float, t: float) -> Layers:
    face = at.Q(hu, hv, 0.34, 0.40)
    lamp = face & at.E(1.0, hv - 0.22, 0.20, 0.14)
    bars = face & (np.sin(26 * at.v) > 0.2)
    return [(face, (205, 208, 212)), (bars, (64, 66, 70)), (lamp, (255, 236, 130))]


def _bus(at: Local, hu: float, hv: float, t: float) -> Layers:
    face = at.B(hu - 0.34, hu + 0.34, hv - 0.50, hv + 0.50)
    u, v = at.u - np.float32(hu), at.v - np.float32(hv)
    return [(face, (248, 168, 30)), (face & (np.abs(v) < 0.24) & (np.sin(20 * u) > -0.1), (25, 24, 26))]


def _train(at: Local, hu: float, hv: float, t: float) -> Layers:
    face = at.Q(hu, hv, 0.40, t + 0.16)
    chevrons = face & (np.sin(15 * (at.u + np.float32(1.2) * np.abs(at.v))) > 0)
    return [(face, (250, 214, 40)), (chevrons, (190, 28, 36))]


def _boat(at: Local, hu: float, hv: float, t: float) -> Layers:
    u, v = at.u - np.float32(hu), at.v - np.float32(hv)
    sail = (v > -0.75) & (v < 0.62) & (u > -0.34) & (u < np.float32(0.42) * (v + np.float32(0.75)) - 0.18)
    stripes = sail & (np.sin(14 * (at.v + np.float32(0.5) * at.u)) > 0.25)
    return [(sail, (240, 240, 244)), (stripes, (196, 40, 90))]


HEADS: tuple[Callable[[Local, float, float, float], Layers], ...] = (
    _boat,
    _train,
    _cow,
    _horse,
    _car,
    _bus,
    _cat,
    _dog,
)


def head(
    rng: np.random.Generator, k: int, at: Local, centre_uv: tuple[float, float], t: float, colour_3HW: Colour
) -> Mask:
    """Paint the part of class `k` into `colour_3HW`; returns its mask (h,w)."""
    tint = np.float32(1) + (rng.normal(0, 0.06) + rng.normal(0, 0.03, 3)).astype(np.float32)
    layers = HEADS[k](at, *centre_uv, t)
    mask = np.zeros(at.u.shape, bool)
    for shape, colour in layers:
        np.copyto(colour_3HW, (np.array(colour, np.float32) * tint)[:, None, None], where=shape)
        mask |= shape
    return mask
