"""Linear layers whose float32 products on a CPU are oneDNN's, those of PyTorch's own convolutions.

PyTorch gives the products of linear layers to MKL, which reaches 80 to 90 % of oneDNN's speed on CPUs that are not
Intel's (docs/benchmarks.md); the numbers differ by the order of sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this PyTorch has the operator that its own compiler calls for linear layers."""


class TokenLinear(nn.Linear):
    """`layer` with the same parameters: (...,in) to (...,out)."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        kinds = {(t.device.type, t.dtype) for t in (x, self.weight)}
        ours = ONEDNN and kinds == {("cpu", torch.float32)} and not torch.compiler.is_compiling()
        if not ours or torch.is_autocast_enabled("cpu") or not x.numel():
            return super().forward(x)
        if not torch.is_grad_enabled():
            return _product(x, self.weight, self.bias)
        return _Linear.apply(x, self.weight, self.bias)


def use_token_linears(module: nn.Module) -> None:
    """Every linear layer inside becomes a `TokenLinear`, its parameters and their names as they were."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, TokenLinear(child))


class _Linear(torch.autograd.Function):
    """The product and its gradients. That of the weights stays with PyTorch: sums over tokens are MKL's strength."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t(), None) if for_x else None,
            rows.t() @ x.flatten(0, -2) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
