"""What stays in single precision where the rest of a step runs in bf16."""

import torch
import torch.nn.functional as F

from methods.parts.nets.projector import Projector


def test_cosines_of_the_projector_are_single_precision_under_autocast():
    torch.manual_seed(0)
    head = Projector(24, hidden=32, bottleneck=16, out=40)
    tokens = torch.randn(64, 24)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(tokens)
        inner = head.mlp(tokens)
    assert inner.dtype == torch.bfloat16, "the perceptron itself is autocast"
    assert found.dtype == torch.float32
    prototypes = F.normalize(head.prototypes.weight, dim=-1)
    expected = F.normalize(inner.float(), dim=-1) @ prototypes.T
    # bf16 would be off by some 1e-3.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    found.square().sum().backward()
    assert head.mlp[0].weight.grad.dtype == head.prototypes.weight.grad.dtype == torch.float32
