"""The generators that a method may draw from, seeded by place in the run and never by history."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_all(*place: int) -> None:
    """Seed torch, numpy and Python from a place such as (seed, step, group)."""
    word = int(np.random.SeedSequence([int(p) for p in place]).generate_state(1, np.uint64)[0])
    torch.manual_seed(word & 0x7FFFFFFFFFFFFFFF)
    np.random.seed(word & 0xFFFFFFFF)
    random.seed(word)


class Draws:
    """The generators of a place as a context: seeded at the first entry, at later ones as the last visit left them."""

    def __init__(self, device: str, *place: int) -> None:
        self._place, self._device = place, torch.device(device)
        self._left: tuple[Any, ...] | None = None

    def __enter__(self) -> None:
        if self._left is None:
            seed_all(*self._place)
            return
        python, numpy, host, device = self._left
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(host)
        if device is not None:
            torch.cuda.set_rng_state(device, self._device)

    def __exit__(self, *error: object) -> None:
        device = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        self._left = (random.getstate(), np.random.get_state(), torch.get_rng_state(), device)
