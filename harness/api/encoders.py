"""An encoder that is given as a module, in place of one that is built by its name: for tests and checks of methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

_GIVEN: ContextVar[nn.Module | None] = ContextVar("given_encoder", default=None)


@contextmanager
def given(encoder: nn.Module) -> Iterator[None]:
    """Inside the block every builder of encoders takes this module, whatever name and weights it is asked for."""
    token = _GIVEN.set(encoder)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given_encoder() -> nn.Module | None:
    """The module that is given here; None where encoders are built by name."""
    return _GIVEN.get()
