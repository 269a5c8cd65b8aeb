"""What a restatement really builds: shapes of its tensors, so that it stays as wasteful as what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Shapes(TorchDispatchMode):
    """Collects the shapes of all tensors that operators return."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            # An expanded view has the shape of what it is broadcast to, but no memory.
            if isinstance(item, torch.Tensor) and item.untyped_storage().nbytes() >= item.numel() * item.element_size():
                self.seen.add(tuple(item.shape))
        return out


def shapes(call: Callable[[], Any]) -> set[tuple[int, ...]]:
    """Shapes of every tensor that `call` fills, also in its backward passes."""
    with _Shapes() as found:
        call()
    return found.seen


def largest(call: Callable[[], Any]) -> tuple[int, ...]:
    """Shape of the largest tensor that `call` fills, of several the first in order."""
    return max(sorted(shapes(call)), key=lambda shape: torch.Size(shape).numel())
