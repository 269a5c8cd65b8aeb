"""What networks and operators do alike on a device: full precision inside autocast, kept constants, fixed shapes."""

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


def true_slots(mask_BN: Tensor, most: int | None) -> tuple[Tensor, Tensor]:
    """Places int64 (B,k) that hold the true ones of each row, ascending, in k slots, and which slots are real, bool.

    `most` is k where the host knows it; without it k is the largest number of a row, for which the host waits. Unreal
    slots point at places that are false.
    """
    if most is None:
        most = int(mask_BN.sum(dim=1).max()) if mask_BN.numel() else 0
    index_Bk = mask_BN.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return index_Bk, mask_BN.gather(1, index_Bk)


def at_slots(values_BND: Tensor, index_Bk: Tensor) -> Tensor:
    """The values (B,k,D) at each row's places."""
    return values_BND.gather(1, index_Bk[..., None].expand(-1, -1, values_BND.shape[2]))
