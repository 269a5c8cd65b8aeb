"""Objects of `shapes`: a pose, local coordinates in it, and the dull body of each class.

Local coordinates: u to the front, v down, unit = half the body's length. Masks are (h,w) boolean.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.datasets.shapes.noise import Plane, noise

Mask = NDArray[np.bool_]
Colour = NDArray[np.float32]

CLASSES = ("boat", "train", "cow", "horse", "car", "bus", "cat", "dog")
BOAT, TRAIN, COW, HORSE, CAR, BUS, CAT, DOG = range(8)
CUE = 0.60
"""How far bodies of siblings differ, 0 (not at all) to 1."""
EXTENT_U, EXTENT_V = (-1.45, 1.65), (-1.85, 1.45)

BIG_FUR = ((0.07, 0.55, 0.45), (0.06, 0.45, 0.62), (0.08, 0.2, 0.85), (0.0, 0.05, 0.22), (0.09, 0.35, 0.75))
SMALL_FUR = ((0.08, 0.65, 0.80), (0.0, 0.03, 0.55), (0.0, 0.05, 0.25), (0.09, 0.25, 0.88), (0.07, 0.50, 0.55))
DARK: Colour = np.array((30, 30, 32), np.float32)
GLASS: Colour = np.array((58, 72, 88), np.float32)
DECK: Colour = np.array((225, 222, 215), np.float32)


@dataclass(frozen=True)
class Pose:
    """Where an object is (centre in pixels), half its body's length `s` in pixels, and how it is turned."""

    cx: float
    cy: float
    s: float
    front: float
    """1.0 faces right, -1.0 left."""
    angle: float
    aspect: float

    def pixels(self, u: float, v: float) -> tuple[float, float]:
        """(x,y) in pixels of a local point."""
        du, dv = self.front * u * self.s, v * self.s * self.aspect
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.cx + du * cos - dv * sin, self.cy + du * sin + dv * cos


@dataclass(frozen=True)
class Local:
    """Local coordinates of a window of pixels, and masks in them: ellipse E, superellipse Q, box B."""

    u: Plane
    v: Plane

    def E(self, cu: float, cv: float, a: float, b: float) -> Mask:
        du, dv = (self.u - cu) / a, (self.v - cv) / b
        return du * du + dv * dv < 1

    def Q(self, cu: float, cv: float, a: float, b: float) -> Mask:
        du, dv = (self.u - cu) / a, (self.v - cv) / b
        du *= du
        dv *= dv
        return du * du + dv * dv < 1

    def B(self, u0: float, u1: float, v0: float, v1: float) -> Mask:
        return (self.u > u0) & (self.u < u1) & (self.v > v0) & (self.v < v1)


def window(pose: Pose, side: int) -> tuple[slice, slice, Local]:
    """Rows and columns of the picture that the object may touch, and its local coordinates there."""
    corners = np.array([pose.pixels(u, v) for u in EXTENT_U for v in EXTENT_V])
    left, top = np.clip(np.floor(corners.min(0)), 0, side - 1).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)) + 1, 1, side).astype(int)
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(pose.cx)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(pose.cy)
    cos, sin = np.float32(np.cos(pose.angle) / pose.s), np.float32(np.sin(pose.angle) / pose.s)
    u = (x * cos + y * sin) * np.float32(pose.front)
    v = (y * cos - x * sin) * np.float32(1 / pose.aspect)
    return slice(top, bottom), slice(left, right), Local(u, v)


def rgb(hue: float, saturation: float, value: float) -> Colour:
    """Grey levels 0 to 255 of a colour given in [0,1]; hue wraps, the others are clipped."""
    s, v = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, s, v), np.float32) * np.float32(255)


def fur(rng: np.random.Generator, palette: tuple[tuple[float, float, float], ...]) -> Colour:
    """A colour of the palette, jittered."""
    hue, saturation, value = palette[rng.integers(len(palette))] + rng.normal(0, (0.012, 0.05, 0.05))
    return rgb(hue, saturation, value)


def paint(rng: np.random.Generator) -> Colour:
    """Any colour of a vehicle."""
    return rgb(rng.uniform(), rng.uniform(0.25, 0.85), rng.uniform(0.45, 0.9))


def _plain(rng: np.random.Generator, colour: Colour, shape: tuple[int, ...], strength: float) -> Colour:
    """A colour with faint blotches, (3,h,w)."""
    field = noise(rng, "mid", shape[0], shape[1])
    return colour[:, None, None] * (1 + np.float32(strength) * field)


def _fill(colour_3HW: Colour, mask: Mask, colour: Colour) -> None:
    np.copyto(colour_3HW, colour[:, None, None], where=mask)


@dataclass(frozen=True)
class Body:
    """A painted body, and its half height, by which vehicles place their part."""

    mask: Mask
    colour_3HW: Colour
    t: float


def _animal(rng: np.random.Generator, k: int, at: Local) -> Body:
    small = k in (CAT, DOG)
    h = rng.uniform(0.42, 0.54)
    length = rng.uniform(0.35, 0.55) if small else rng.uniform(0.55, 0.75) + 0.12 * CUE * (k == HORSE)
    half = 0.15 if small else 0.13
    mask = at.Q(0, 0, 1, h)
    for foot in np.array((-0.78, -0.5, 0.5, 0.78)) + rng.uniform(-0.1, 0.1, 4):
        mask |= at.B(foot - half, foot + half, 0.2, h + length)
    mask |= at.E(-1.15, -0.45, 0.16, 0.55) if small else at.B(-1.18, -1.02, -0.35, 0.45)
    palette = SMALL_FUR if small else BIG_FUR
    textured = rng.random() < 0.5 + 0.5 * CUE * (1 if k in (COW, CAT) else -1)
    colour = fur(rng, palette)
    if not textured:
        return Body(mask, _plain(rng, colour, mask.shape, 0.10), h)
    field = noise(rng, "mid", *mask.shape)
    out = np.empty((3, *mask.shape), np.float32)
    out[:] = colour[:, None, None]
    if small:
        stripes = np.sin((at.u + np.float32(0.25) * field) * np.float32(rng.uniform(9, 13))) > 0.25
        np.multiply(out, np.float32(0.62), out=out, where=stripes)
    else:
        _fill(out, field > rng.uniform(0.1, 0.6), fur(rng, palette))
    return Body(mask, out, h)


def _car(rng: np.random.Generator, k: int, at: Local) -> Body:
    t = rng.uniform(0.34, 0.50) + 0.22 * CUE * (k == BUS)
    roof = at.Q(-0.1, -0.9 * t, 0.66, 0.8 * t)
    wheels = at.E(-0.58, 0.95 * t, 0.24, 0.24) | at.E(0.58, 0.95 * t, 0.24, 0.24)
    mask = at.Q(0, 0, 1, t) | roof | wheels
    out = _plain(rng, paint(rng), mask.shape, 0.05)
    panes = at.B(-0.65, 0.55, -1.45 * t, -0.55 * t) & roof & (np.sin(11 * (at.u + np.float32(0.1))) > -0.6)
    _fill(out, panes, GLASS * np.float32(rng.uniform(0.8, 1.3)))
    _fill(out, wheels, DARK)
    return Body(mask, out, t)


def _train(rng: np.random.Generator, k: int, at: Local) -> Body:
    t = rng.uniform(0.34, 0.44)
    skirt = at.B(-1.35, 1, t, t + 0.16)
    mask = at.B(-1.35, 1, -t, t) | skirt
    out = _plain(rng, paint(rng), mask.shape, 0.05)
    panes = at.B(-1.25, 0.9, -0.6 * t, 0.05 * t) & (np.sin(10 * at.u) > -0.3)
    _fill(out, panes, GLASS * np.float32(rng.uniform(0.8, 1.3)))
    _fill(out, skirt, DARK)
    return Body(mask, out, t)


def _boat(rng: np.random.Generator, k: int, at: Local) -> Body:
    t = rng.uniform(0.28, 0.38)
    hull = (np.abs(at.u) < 1.18 - 0.5 * (at.v + np.float32(t))) & (np.abs(at.v) < t)
    deck = at.B(-0.75, 0.05, -t - 0.34, -t)
    out = _plain(rng, paint(rng), hull.shape, 0.05)
    holes = hull & (np.sin(12 * at.u) > 0.4) & (np.abs(at.v) < 0.35 * t)
    _fill(out, holes, GLASS * np.float32(rng.uniform(0.8, 1.3)))
    _fill(out, deck, DECK * np.float32(rng.uniform(0.8, 1.05)))
    return Body(hull | deck, out, t)


BODIES = (_boat, _train, _animal, _animal, _car, _car, _animal, _animal)


def body(rng: np.random.Generator, k: int, at: Local) -> Body:
    """The body of class `k` (0 boat to 7 dog) at these local coordinates."""
    return BODIES[k](rng, k, at)
