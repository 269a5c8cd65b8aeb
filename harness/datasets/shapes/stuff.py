"""The ten background materials of `shapes` (base colour, jitter, noise, structure), and blobs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.datasets.shapes.noise import Plane, noise

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class _Material:
    base: RGB
    jitter: float
    noise: tuple[tuple[str, RGB], ...]


def _grey(value: float) -> RGB:
    return (value, value, value)


MATERIALS = {
    "sky": _Material((150, 185, 225), 14, (("smooth", (22, 16, 7)),)),
    "water": _Material((62, 104, 138), 14, (("hstreak", (20, 22, 22)), ("fine", (6, 7, 7)))),
    "grass": _Material((92, 132, 62), 14, (("vstreak", (17, 20, 12)), ("mid", (10, 10, 6)))),
    "gravel": _Material((122, 112, 104), 9, (("fine", (18, 17, 16)),)),
    "asphalt": _Material((108, 108, 112), 12, (("fine", _grey(6)), ("smooth", _grey(7)))),
    "urban": _Material((150, 138, 130), 20, (("mid", _grey(12)),)),
    "wall": _Material((188, 172, 156), 22, (("smooth", _grey(8)),)),
    "floor": _Material((150, 108, 74), 14, (("hstreak", (13, 11, 9)),)),
    "foliage": _Material((70, 98, 56), 12, (("mid", (22, 26, 16)), ("fine", (8, 9, 6)))),
    "sand": _Material((204, 180, 138), 12, (("fine", (8, 8, 7)), ("smooth", (8, 8, 7)))),
}
KINDS = tuple(MATERIALS)
RAIL = np.array((200, 200, 205), np.float32)


def _rails(rng: np.random.Generator, plane_3HW: NDArray[np.float32]) -> None:
    """Sleepers over the whole width, and two slanted rails."""
    _, h, w = plane_3HW.shape
    y, x = np.arange(h, dtype=np.float32), np.arange(w, dtype=np.float32)
    period = rng.uniform(6, 9)
    plane_3HW[:, (y + rng.uniform(0, period)) % period < 2.6] -= 30
    apart, middle = rng.uniform(12, 22), rng.uniform(0.25, 0.75) * w
    for side in (-0.5, 0.5):
        centre = middle + side * apart + rng.uniform(-0.3, 0.3) * (y - h / 2)
        rail = np.abs(x[None, :] - centre[:, None]) < 1.3
        plane_3HW[:, rail] = RAIL[:, None]


def _windows(rng: np.random.Generator, plane_3HW: NDArray[np.float32]) -> None:
    """Dark windows in the lower right part of each cell of a grid."""
    _, h, w = plane_3HW.shape
    across, down = rng.integers(9, 14), rng.integers(8, 12)
    x, y = np.arange(w) + rng.integers(across), np.arange(h) + rng.integers(down)
    window = ((y % down) * 2 >= down)[:, None] & ((x % across) * 2 >= across)[None, :]
    plane_3HW[:, window] -= np.array((45, 40, 30), np.float32)[:, None]


def stuff(rng: np.random.Generator, kind: str, h: int, w: int, *, jitter: float = 1.0) -> NDArray[np.float32]:
    """A picture (3,h,w) of one material, grey levels about 0 to 255; `jitter` widens its range of colours."""
    material = MATERIALS[kind]
    spread = material.jitter * jitter
    base = np.asarray(material.base) + rng.normal(0, spread) + 0.6 * rng.normal(0, spread, 3)
    out = np.empty((3, h, w), np.float32)
    out[:] = base.astype(np.float32)[:, None, None]
    for name, amplitude in material.noise:
        field = noise(rng, name, h, w)
        for channel in range(3):
            out[channel] += np.float32(amplitude[channel]) * field
    if kind == "gravel":
        _rails(rng, out)
    elif kind == "urban":
        _windows(rng, out)
    elif kind == "wall" and rng.random() < 0.5:
        phase = 2 * np.pi * (np.arange(w) + rng.uniform(0, 13)) / rng.uniform(6, 13)
        out += (6 * np.sin(phase)).astype(np.float32)
    elif kind == "floor":
        step = int(rng.integers(7, 12))
        out[:, int(rng.integers(step)) :: step] -= 25
    return out


def blob(rng: np.random.Generator, y: Plane, x: Plane, cy: float, cx: float, radius: float) -> NDArray[np.bool_]:
    """A ragged disc of about `radius` pixels at (cy, cx), on pixel rows `y` (h,1) and columns `x` (1,w)."""
    ry, rx = radius * rng.uniform(0.7, 1.3, 2)
    field = noise(rng, "smooth", y.shape[0], x.shape[1])
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + 0.25 * field < 1
