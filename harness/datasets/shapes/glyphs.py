"""Pretext pictures: one abstract object on random stuff, its label the only thing to learn.

Their bodies and parts are disjoint from those of `shapes`: a backbone trained on them is a foreign one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.datasets.shapes.noise import Plane, line, noise
from harness.datasets.shapes.objects import BIG_FUR, SMALL_FUR, Colour, Local, Mask, Pose, fur, paint, rgb
from harness.datasets.shapes.scene import camera, generator
from harness.datasets.shapes.stuff import KINDS, blob, stuff

SIDE = 48
SETS = {"G64": 64, "G16": 16}
"""Number of classes of each set: G64 has groups of four that share their colours, G16 a hue per class."""
BODIES = ("superellipse", "cross", "trapezoid", "ring")
TEXTURES = ("plain", "patched", "striped")
PARTS = ("disc", "square", "triangle", "diamond")
PATTERNS = ("along u", "along v", "diagonal", "checks", "rings", "dots", "blotches")
_ATTRIBUTE_SEED, _COLOUR_SEED = 778, 779
_STREAM = 1000
"""Keeps the random numbers of pretext pictures apart from those of the dataset."""

_Y = np.arange(SIDE, dtype=np.float32)[:, None]
_X = np.arange(SIDE, dtype=np.float32)[None, :]


@dataclass(frozen=True)
class Glyph:
    """What all pictures of one pretext class share."""

    body: str
    texture: str
    part: str
    pattern: str
    angle: float
    """Where the part sits around the centre, radians."""
    distance: float
    radius: float
    frequency: float
    first: Colour
    second: Colour


def _g64(label: int) -> Glyph:
    rng, colours = generator(_ATTRIBUTE_SEED, label), generator(_COLOUR_SEED, label // 4)
    hue = colours.uniform()
    first = rgb(hue, colours.uniform(0.55, 0.95), colours.uniform(0.6, 1.0))
    second = rgb(hue + colours.uniform(0.3, 0.7), colours.uniform(0.1, 0.9), colours.uniform(0.15, 1.0))
    return Glyph(
        BODIES[rng.integers(4)],
        TEXTURES[rng.integers(3)],
        PARTS[rng.integers(4)],
        PATTERNS[rng.integers(7)],
        rng.uniform(0, 2 * np.pi),
        rng.uniform(0.7, 1.0),
        rng.uniform(0.38, 0.58),
        rng.uniform(8, 18),
        first,
        second,
    )


def _g16(label: int) -> Glyph:
    second = rgb(label / 16 + 0.5, 0.3 if label % 2 else 0.8, 0.95 if label % 2 else 0.25)
    return Glyph(
        BODIES[label % 4],
        TEXTURES[label % 3],
        PARTS[label // 4 % 4],
        PATTERNS[(5 * label + 3) % 7],
        2 * np.pi * (7 * label % 16) / 16,
        0.85,
        0.48,
        8 + 10 * (3 * label % 16) / 15,
        rgb(label / 16, 0.85, 0.95),
        second,
    )


def glyph(name: str, label: int) -> Glyph:
    """The attributes of class `label` of set `name` (G64 or G16)."""
    return {"G64": _g64, "G16": _g16}[name](label)


def _body(shape: str, at: Local) -> Mask:
    if shape == "superellipse":
        return at.Q(0, 0, 1, 0.62)
    if shape == "cross":
        return at.B(-1, 1, -0.32, 0.32) | at.B(-0.32, 0.32, -0.85, 0.85)
    if shape == "trapezoid":
        return (np.abs(at.v) < 0.6) & (np.abs(at.u) < 0.7 + np.float32(0.5) * at.v)
    return at.E(0, 0, 1, 0.85) & ~at.E(0, 0, 0.5, 0.4)


def _part(shape: str, u: Plane, v: Plane) -> Mask:
    """A unit shape; all four have about the same area."""
    if shape == "disc":
        return u * u + v * v < 1
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) < 0.9
    if shape == "triangle":
        return (v < 0.9) & (np.abs(u) < np.float32(0.62) * (v + 1))
    return np.abs(u) + np.abs(v) < 1.25


def _pattern(rng: np.random.Generator, name: str, u: Plane, v: Plane, frequency: float) -> Mask:
    """Where the second colour goes; u, v from the part's centre, in the object's unit."""
    f = np.float32(frequency)
    if name == "along u":
        return np.sin(f * v) > 0
    if name == "along v":
        return np.sin(f * u) > 0
    if name == "diagonal":
        return np.sin(f * np.float32(0.7) * (u + v)) > 0
    if name == "checks":
        return np.sin(f * u) * np.sin(f * v) > 0
    if name == "rings":
        return np.sin(f * np.hypot(u, v)) > 0
    if name == "dots":
        return np.sin(f * u) + np.sin(f * v) > 0.9
    return noise(rng, "mid", *u.shape) > 0.1


def _torso(rng: np.random.Generator, g: Glyph, at: Local) -> Colour:
    """Colours (3,H,W) of the body, everywhere."""

    def plain() -> Colour:
        palette = BIG_FUR if rng.random() < 0.5 else SMALL_FUR
        return paint(rng) if rng.random() < 0.6 else fur(rng, palette)

    colour = plain()
    field = noise(rng, "mid", SIDE, SIDE)
    out = colour[:, None, None] * (1 + np.float32(0.06) * field)
    if g.texture == "patched":
        np.copyto(out, plain()[:, None, None], where=field > 0.35)
    elif g.texture == "striped":
        stripes = np.sin(at.u * np.float32(rng.uniform(9, 13))) > 0.25
        np.multiply(out, np.float32(0.62), out=out, where=stripes)
    return out


def picture(name: str, seed: int, split: int, index: int) -> tuple[NDArray[np.uint8], int]:
    """Picture (48,48,3) `index` of a split (0 training, 1 fresh ones for checking), and its label."""
    label = index % SETS[name]
    g = glyph(name, label)
    rng = generator(seed, split, index, _STREAM, SETS[name])
    upper, lower = (stuff(rng, KINDS[rng.integers(len(KINDS))], SIDE, SIDE) for _ in range(2))
    horizon = rng.uniform(0.2, 0.6) * SIDE + 1.6 * line(rng, SIDE)
    colour = np.where(horizon[None, :] <= _Y, lower, upper).astype(np.float32)
    for _ in range(rng.poisson(1.0)):
        plain = paint(rng) if rng.random() < 0.5 else fur(rng, BIG_FUR if rng.random() < 0.5 else SMALL_FUR)
        cy, cx = rng.uniform(0, SIDE, 2)
        shape = blob(rng, _Y, _X, cy, cx, rng.uniform(3, 8))
        np.copyto(colour, plain[:, None, None], where=shape)
    x, y = rng.uniform(0.3, 0.7, 2) * SIDE
    pose = Pose(x, y, rng.uniform(9, 17), 1.0 if rng.random() < 0.5 else -1.0, rng.normal(0, 0.15), 1.0)
    at = _coordinates(pose)
    np.copyto(colour, _torso(rng, g, at), where=_body(g.body, at))
    u = at.u - np.float32(g.distance * np.cos(g.angle))
    v = at.v - np.float32(g.distance * np.sin(g.angle))
    second = _pattern(rng, g.pattern, u, v, g.frequency)
    inside = _part(g.part, u / np.float32(g.radius), v / np.float32(g.radius))
    np.copyto(colour, g.first[:, None, None], where=inside)
    np.copyto(colour, g.second[:, None, None], where=inside & second)
    return camera(rng, colour, ramp=False), label


def _coordinates(pose: Pose) -> Local:
    """Local coordinates over the whole picture."""
    x, y = _X - np.float32(pose.cx), _Y - np.float32(pose.cy)
    cos, sin = np.float32(np.cos(pose.angle) / pose.s), np.float32(np.sin(pose.angle) / pose.s)
    return Local((x * cos + y * sin) * np.float32(pose.front), y * cos - x * sin)


def pictures(name: str, n: int, *, seed: int = 0, split: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first `n` pictures (n,48,48,3) of a split of set `name`, and their labels (n,)."""
    made = [picture(name, seed, split, i) for i in range(n)]
    return np.stack([image for image, _ in made]), np.array([label for _, label in made], np.int64)
