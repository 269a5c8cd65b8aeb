"""Five banks of correlated noise, and the crops of them that every texture of `shapes` is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 256
REALISATIONS = 3
SEED = 12345

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class _Spectrum:
    """Amplitude 1/r^exponent, r = hypot(stretch_x fx, stretch_y fy) per pixel; zero below `lowest`."""

    exponent: float
    lowest: float = 0.0
    stretch_x: float = 1.0
    stretch_y: float = 1.0


SPECTRA = {
    "smooth": _Spectrum(2.2),
    "mid": _Spectrum(1.4, 0.02),
    "fine": _Spectrum(0.5, 0.08),
    "hstreak": _Spectrum(1.5, 0.05, stretch_x=5.0),
    "vstreak": _Spectrum(1.3, 0.05, stretch_y=4.0),
}


@cache
def _bank() -> dict[str, NDArray[np.float32]]:
    """Fields (3,256,256) of standard deviation 1 by name, the same in every process."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    frequency = np.fft.fftfreq(SIDE)
    bank = {}
    for name, s in SPECTRA.items():
        r = np.hypot(s.stretch_x * frequency[None, :], s.stretch_y * frequency[:, None])
        amplitude = np.where((r < s.lowest) | (r == 0), 0.0, 1.0 / np.maximum(r, 1.0 / SIDE) ** s.exponent)
        white = rng.standard_normal((REALISATIONS, SIDE, SIDE))
        fields = np.fft.ifft2(np.fft.fft2(white) * amplitude).real
        fields /= fields.std(axis=(1, 2), keepdims=True)
        bank[name] = fields.astype(np.float32)
    return bank


def noise(rng: np.random.Generator, name: str, h: int, w: int) -> Plane:
    """A crop (h,w), each at most 256, of a random realisation, mirrored half of the time, about N(0,1).

    `name` is smooth, mid, fine, hstreak (long along x) or vstreak (long along y). The result is read-only.
    """
    which, top, left = rng.integers((REALISATIONS, SIDE - h + 1, SIDE - w + 1))
    crop = _bank()[name][which, top : top + h, left : left + w]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def line(rng: np.random.Generator, w: int) -> NDArray[np.float32]:
    """One row (w,) of smooth noise."""
    return noise(rng, "smooth", 1, w)[0]
