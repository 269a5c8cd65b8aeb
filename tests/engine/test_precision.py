"""What stays in single precision where the rest of a step runs in bf16."""

import pytest
import torch
import torch.nn.functional as F

from harness.api.method import Progress
from harness.api.precision import of_run
from harness.testing import MethodTests
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


@pytest.mark.parametrize("name", ["fsr", "toco", "ema"])
def test_only_passes_without_gradient_are_read_in_bfloat16(name):
    """By the products of a step with weights: in bfloat16 where no gradient is taken, in float32 where one is."""

    class Runner(MethodTests):
        method = name

    tests = Runner()
    run, dataset = tests.run_config({"cam_scales": [1.0, 1.5]} if name != "ema" else {}), tests.dataset()
    method = tests.build(run, dataset).train()
    seen = {True: set(), False: set()}
    # A classifier, a convolution, reads tokens of the training pass once more for the CAM of scale 1.
    kind = torch.nn.Conv2d if name == "ema" else torch.nn.Linear

    def note(module, inputs, output):
        seen[torch.is_grad_enabled()].add(output.dtype)

    for module in method.modules():
        if isinstance(module, kind):
            module.register_forward_hook(note)
    with of_run("bf16-nograd", "cpu"):
        out = method.step(tests.group(run, dataset, method), Progress(90, 100))
    assert seen == {True: {torch.float32}, False: {torch.bfloat16}}
    assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in out.losses.values())
