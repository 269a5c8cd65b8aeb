"""Two habits of every network and operator on a device: full precision inside autocast, constants that are kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

VERSION = 1


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A block in which autocast changes no dtype on the device of `like`; devices without autocast need none."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A vector (n,) of these values with device and dtype of `like`, copied there at its first use: nobody may write
    to it."""
    return _kept(values, like.device, like.dtype)


@lru_cache(maxsize=256)
def _kept(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype)
