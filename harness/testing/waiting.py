"""Where a training step would make the host wait for its device, and how much it launches there, found without one.

The step runs on device `meta`, whose tensors have shapes and no numbers: what asks for a number (`item`, `cpu`,
boolean indexing, `nonzero`) raises by itself, and a dispatch mode sees what is copied from the host.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.api.method import Batch, Method, Progress
from harness.plan.seeding import Draws

META = "meta"
_FREE = frozenset({"aten.detach.default", "aten.empty.memory_format", "aten._unsafe_view.default"})
"""Beside views, what launches nothing."""
_WAITING = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""What tensors without numbers raise where one is asked for."""
PHASES = 8
"""Places of a run at which the step is tried, the first step among them."""


class _Fused(TorchFunctionMode):
    """Attention as the one operation that it is on a GPU; `meta` would take it apart."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and args[0].device.type == META:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **rest: Any
) -> Tensor:
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    fused = torch.ops.aten._scaled_dot_product_efficient_attention
    return fused(query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p)[0]


class _Watch(TorchDispatchMode):
    """Counts what a device would launch, and notes where numbers travel to it from the host; a tensor of one number
    may, as an argument does."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.uploads: dict[str, str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.launches += not func.is_view and str(func) not in _FREE
        given = list(_tensors([args, kwargs or {}]))
        on_device = any(t.device.type == META for t in given) or any(t.device.type == META for t in _tensors(out))
        from_host = any(t.device.type != META and t.ndim for t in given)
        if on_device and (from_host or func is torch.ops.aten.lift_fresh.default):
            self.uploads[_place(traceback.extract_stack())] = f"{func} copies from the host"
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


@dataclass(frozen=True)
class Watched:
    """What a step does on a device, by the share of the run."""

    waits: list[str]
    """Where it would wait, each place once: `file:line: why, from which share on`."""
    launches: dict[float, int]
    """Operations of forward and backward that the device would launch, attention as one, without the optimiser's."""


def watch_step(method: Method, *groups: Batch, phases: int = PHASES) -> Watched:
    """Run the step of one group, or of several together, and its backward without numbers, `phases` times along the
    run.

    What is copied at its first use alone, a constant that is kept, is no wait. `method` and groups lie on the host, or
    on `meta`; the method is moved there and of no use afterwards.
    """
    nn.Module.to(method.train(), META)
    on_meta = [group.to(META) for group in groups]
    found: dict[str, str] = {}
    launches: dict[float, int] = {}
    for progress in (Progress(i, phases) for i in range(phases)):
        since = f"from {progress.fraction:.3g} of the run on"
        for again in (False, True):
            method.zero_grad(set_to_none=True)
            watch = _Watch()
            try:
                with _Fused(), watch:
                    ready = [method.on_device(group) for group in on_meta]
                    if len(ready) > 1:
                        outputs = method.steps(ready, progress, [Draws("cpu", i) for i in range(len(ready))])
                    else:
                        outputs = [method.step(ready[0], progress)]
                    torch.stack([loss for out in outputs for loss in out.losses.values()]).sum().backward()
            except _WAITING as error:
                place = _place(traceback.extract_tb(error.__traceback__))
                found.setdefault(place, f"the host asks the device for a number ({_first_line(error)}), {since}")
                break
            launches[progress.fraction] = watch.launches
            if not watch.uploads:
                break
            if again:
                found = {place: f"{what}, {since}" for place, what in watch.uploads.items()} | found
    return Watched([f"{place}: {why}" for place, why in found.items()], launches)


def _place(stack: traceback.StackSummary) -> str:
    """The last line outside torch and this file."""
    torchs = Path(torch.__file__).parent
    lines = [f for f in stack if f.filename != __file__ and not Path(f.filename).is_relative_to(torchs)]
    return f"{lines[-1].filename}:{lines[-1].lineno}" if lines else "backward"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:80]
