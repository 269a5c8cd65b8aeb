"""A9, A10 and the moving-average teacher."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from methods.parts.bases.teacher import ema_update, make_teacher
from methods.parts.nets.decoders import DeepLabV2, LargeFOV, deeplabv2_rates
from methods.parts.nets.projector import Projector


def test_decoder_shape_weights_and_start() -> None:
    torch.manual_seed(0)
    decoder = LargeFOV(48, 7, width=64)
    assert decoder(torch.randn(2, 48, 5, 9)).shape == (2, 7, 5, 9)
    assert sum(p.numel() for p in decoder.parameters()) == 48 * 64 * 9 + 64 * 64 * 9 + 64 * 7
    assert not any(name.endswith("bias") for name, _ in decoder.named_parameters())
    assert decoder.first.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert decoder.second.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    plain = LargeFOV(48, 7, width=64, kaiming=False)
    assert plain.first.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 48 * 9), rel=0.03)


def test_decoder_sees_eleven_dilated_steps() -> None:
    torch.manual_seed(0)
    decoder = LargeFOV(4, 2, width=8)
    image = torch.zeros(1, 4, 31, 31, requires_grad=True)
    decoder(image + 1)[0, 0, 15, 15].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()[:, 0].tolist()
    assert rows == [5, 10, 15, 20, 25]


def test_deeplabv2_sums_four_rates_with_bias() -> None:
    torch.manual_seed(0)
    decoder = DeepLabV2(16, 5)
    assert [m.dilation for m in decoder.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert sum(p.numel() for p in decoder.parameters()) == 4 * (5 * 16 * 9 + 5)
    weights = torch.cat([m.weight.flatten() for m in decoder.branches])
    assert weights.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(m.bias.any() for m in decoder.branches)
    x = torch.randn(2, 16, 9, 7, requires_grad=True)
    expected = sum(nn.functional.conv2d(x, m.weight, m.bias, padding=r, dilation=r) for m, r in zip(
        decoder.branches, (6, 12, 18, 24), strict=True))  # fmt: skip
    torch.testing.assert_close(decoder(x), expected)


def test_deeplabv2_sees_its_rates() -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 2, 61, 61, requires_grad=True)
    DeepLabV2(2, 3)(image)[0, 0, 30, 30].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()[:, 0].tolist()
    assert rows == [6, 12, 18, 24, 30, 36, 42, 48, 54]


@pytest.mark.parametrize(
    ("grid", "rates"), [(56, (6, 12, 18, 24)), (41, (6, 12, 18, 24)), (20, (3, 6, 9, 12)), (3, (1, 1, 1, 2))]
)
def test_rates_of_deeplabv2_shrink_with_small_crops(grid, rates) -> None:
    assert deeplabv2_rates(grid) == rates


def test_projector_gives_cosines_to_unit_prototypes() -> None:
    torch.manual_seed(0)
    head = Projector(12, hidden=32, bottleneck=8, out=20)
    tokens = torch.randn(2, 5, 12)
    found = head(tokens)
    unit = nn.functional.normalize(head.mlp(tokens), dim=-1)
    weight = head.prototypes.weight
    expected = unit @ (weight / weight.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 5, 20)
    assert found.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        weight.mul_(7.0)
    torch.testing.assert_close(head(tokens), found)
    torch.testing.assert_close(head(tokens[1, 2:4]), found[1, 2:4])


def test_projector_size_and_start() -> None:
    torch.manual_seed(0)
    head = Projector(96, hidden=512, bottleneck=64, out=128)
    linear = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(512, 96), (512, 512), (64, 512)]
    assert all(layer.bias.count_nonzero() == 0 for layer in linear)
    assert all(layer.weight.std().item() == pytest.approx(0.02, rel=0.05) for layer in linear)
    assert head.prototypes.bias is None
    assert head.prototypes.weight.shape == (128, 64)
    assert sum(isinstance(layer, nn.GELU) for layer in head.mlp) == 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


def test_teacher_starts_equal_and_follows() -> None:
    torch.manual_seed(0)
    student = Net().train()
    teacher = make_teacher(student)
    assert teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    before = [p.clone() for p in teacher.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    student.norm.running_mean.fill_(3.0)
    student.norm.num_batches_tracked.fill_(5)
    ema_update(teacher, student, 0.75)
    for a, t in zip(before, teacher.parameters(), strict=True):
        torch.testing.assert_close(t, a + 0.25)
    assert teacher.norm.running_mean.tolist() == [3, 3]
    assert int(teacher.norm.num_batches_tracked) == 5
    moved = [p.clone() for p in teacher.parameters()]
    ema_update(teacher, student, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(moved, teacher.parameters(), strict=True))
    ema_update(teacher, student, 0.0)
    for s, t in zip(student.parameters(), teacher.parameters(), strict=True):
        torch.testing.assert_close(t, s.detach())


def test_networks_that_differ_are_refused_by_name() -> None:
    student = Net()
    teacher = make_teacher(student)
    student.extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"extra\.bias, extra\.weight"):
        ema_update(teacher, student, 0.9)
