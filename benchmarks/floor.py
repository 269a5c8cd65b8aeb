"""The floor of a training step: the matrix products that it calls, alone, on tensors of the same shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from methods.parts.nets.token_linear import ONEDNN

_ATEN = torch.ops.aten
PRODUCTS = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
    _ATEN.convolution.default,
    _ATEN.convolution_backward.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
"""Operators that count as matrix products; fused attention is one, softmax included."""
if ONEDNN:
    PRODUCTS.add(torch.ops.mkldnn._linear_pointwise.default)

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _linear_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
        """Operations of a linear layer, of the shapes of its input and its weight."""
        return 2 * math.prod(x) * weight[0]


@dataclass(frozen=True)
class Shape:
    """A tensor without its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Products(TorchDispatchMode):
    """Writes down every matrix product inside a `with` block, backward passes included (CPU)."""

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    flops: int = 0
    """Floating-point operations of these products."""

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in PRODUCTS:
            self.calls.append((func, tuple(_described(a) for a in args), {k: _described(v) for k, v in kwargs.items()}))
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        return out

    def replay(self) -> Callable[[], None]:
        """A callable that does these products again. Tensors of one shape share memory: a floor may be too low."""
        pool: dict[tuple[Shape, int], Tensor] = {}

        def filled(value: Any, place: int) -> Any:
            if not isinstance(value, Shape):
                return value
            if (value, place) not in pool:
                length = 1 + sum((n - 1) * step for n, step in zip(value.size, value.stride, strict=True))
                numbers = torch.zeros(length, dtype=value.dtype)
                if value.dtype.is_floating_point:
                    numbers.normal_(std=0.1)
                pool[value, place] = numbers.as_strided(value.size, value.stride)
            return pool[value, place]

        ready = [
            (func, [filled(a, i) for i, a in enumerate(args)], {k: filled(v, -1) for k, v in kwargs.items()})
            for func, args, kwargs in self.calls
        ]

        @torch.no_grad()
        def again() -> None:
            for func, args, kwargs in ready:
                func(*args, **kwargs)

        return again

    def summary(self) -> str:
        """How many products of which kind."""
        count = Counter(str(func).removeprefix("aten.").removesuffix(".default") for func, _, _ in self.calls)
        return ", ".join(f"{n} {name.strip('_')}" for name, n in count.most_common())


def _described(value: Any) -> Any:
    return Shape(tuple(value.shape), value.stride(), value.dtype) if isinstance(value, Tensor) else value


def products_of(call: Callable[[], object]) -> Products:
    """The matrix products of one call."""
    with Products() as products:
        call()
    return products
