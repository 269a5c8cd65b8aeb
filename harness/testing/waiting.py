"""Where a training step would make the host wait for its device, found without one.

The step runs on device `meta`, whose tensors have shapes and no numbers: what asks for a number (`item`, `cpu`,
boolean indexing, `nonzero`) raises by itself, and a dispatch mode sees what is copied from the host.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.api.method import Batch, Method, Progress

META = "meta"
_WAITING = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""What tensors without numbers raise where one is asked for."""
PHASES = 20
"""Places of a run at which the step is tried, the first step among them."""


class _Upload(RuntimeError):
    """A tensor of the host reached an operation of the device."""


class _NoUploads(TorchDispatchMode):
    """Raises where numbers travel from the host to the device; a tensor of one number may, as an argument does."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = list(_tensors([args, kwargs or {}])), list(_tensors(out))
        name = str(func)
        on_device = any(t.device.type == META for t in (*given, *made))
        from_host = any(t.device.type != META and t.ndim for t in given)
        if on_device and (from_host or name.startswith("aten.lift_fresh")):
            raise _Upload(f"{name} copies from the host")
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def waits(method: Method, group: Batch, on_count: Callable[[float, int], None] | None = None) -> list[str]:
    """Where `step` or its backward would wait, each place once: `file:line: why, from which share of T on`.

    What is copied at the first step alone, a constant that is kept, is no wait. `method` and `group` lie on the host;
    the method is moved to device `meta` and of no use afterwards. `on_count`
    is told the number of operations of each place of the run that was tried, by the share of T.
    """
    nn.Module.to(method.train(), META)
    on_meta, found = group.to(META), {}

    def go(progress: Progress) -> None:
        out = method.step(on_meta, progress)
        torch.stack(list(out.losses.values())).sum().backward()

    for progress in (Progress(i, PHASES) for i in range(PHASES)):
        with suppress(*_WAITING):
            go(progress)  # what is made once is made here
        try:
            with _NoUploads(), _Counting() as counted:
                go(progress)
        except _WAITING as error:
            found.setdefault(_place(error), f"{_words(error)}, from {progress.fraction:.3g} T on")
            continue
        if on_count is not None:
            on_count(progress.fraction, counted.operations)
    return [f"{place}: {why}" for place, why in found.items()]


class _Counting(TorchDispatchMode):
    """Counts operations that a device would launch: all but views and what makes no tensor."""

    operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and str(func) not in ("aten.detach.default", "aten.empty.memory_format"):
            self.operations += 1
        return out


def _place(error: BaseException) -> str:
    """The last line outside torch and this file."""
    torchs = Path(torch.__file__).parent
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not Path(f.filename).is_relative_to(torchs) and f.filename != __file__
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "backward"


def _words(error: BaseException) -> str:
    text = str(error).splitlines()[0]
    return text if isinstance(error, _Upload) else f"the host asks the device for a number ({text[:80]})"
