"""FSAE's teacher labels, consistency loss and teacher. Numbers of fsae.md section 8."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from methods.fsae.labels import class_logits, confidence_bins, dilate, filter_absent, teacher_labels
from methods.fsae.losses import consistency_loss
from methods.fsae.teacher import average_trained

VOC = torch.zeros(1, 20)
VOC[0, 7] = 1.0


@pytest.mark.parametrize(
    ("absent", "at_95", "at_80", "needed"),
    [
        ("zero", math.log(19 * 20), math.log(4 * 20), (5.940, 4.382)),
        ("exclude", math.log(19), math.log(4), (2.944, 1.386)),
    ],
)
def test_logit_that_confidence_needs(absent, at_95, at_80, needed):
    """fsae.md 8.1: one present class, background at 0; channel 20 is background, as published."""
    assert (at_95, at_80) == pytest.approx(needed, abs=1e-3)
    logits = torch.randn(1, 21, 1, 4, generator=torch.Generator().manual_seed(0)) * 30
    logits[0, 20] = 0.0
    logits[0, 7, 0] = torch.tensor([at_95 + 1e-3, at_95 - 1e-3, at_80 + 1e-3, at_80 - 1e-3])
    found = teacher_labels(logits, VOC, absent=absent, background=20)
    assert found.mask[0, 0].tolist() == [True, False, False, False]
    assert (found.conf[0, 0] >= 0.8).tolist() == [True, True, True, False]
    assert found.label[0, 0].tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize(
    ("temperature", "at_95", "at_80"),
    [(0.05, 0.574, 0.535), (0.1, 0.647, 0.569), (0.2, 0.794, 0.639), (0.3, 0.942, 0.708)],
)
def test_activation_that_confidence_needs(temperature, at_95, at_80):
    """fsae.md 8.2: the generic rule with one present class."""
    n = torch.tensor([1.0, at_95 + 1e-3, at_95 - 1e-3, at_80 + 1e-3, at_80 - 1e-3])
    maps = torch.full((1, 20, 1, 5), 9.0)
    maps[0, 7, 0] = n * 3.7
    logits = class_logits(maps, VOC, temperature)
    assert logits.shape == (1, 21, 1, 5)
    torch.testing.assert_close(logits[0, 8, 0] * temperature, n)
    torch.testing.assert_close(logits[0, 0, 0] * temperature, 1 - n, atol=1e-6, rtol=0)
    found = teacher_labels(logits, VOC, absent="exclude")
    torch.testing.assert_close(found.conf[0, 0], torch.sigmoid((2 * n - 1) / temperature))
    assert found.mask[0, 0].tolist() == [True, True, False, False, False]
    assert (found.conf[0, 0] >= 0.8).tolist() == [True, True, True, True, False]


def test_generic_logits_by_hand():
    """Two present classes of three, raw maps with negative values, at three places; the second image shows nothing."""
    maps = torch.tensor([[[[2.0, -1.0, 1.0]], [[5.0, 5.0, 5.0]], [[0.0, 8.0, 6.0]]], [[[-1.0, -2.0, -3.0]]] * 3])
    logits = class_logits(maps, torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), 0.5)
    expected = torch.tensor([[0.0, 0.0, 0.25], [1.0, 0.0, 0.5], [-math.inf] * 3, [0.0, 1.0, 0.75]]) / 0.5
    torch.testing.assert_close(logits[0, :, 0], expected)
    torch.testing.assert_close(logits[1, :, 0], torch.tensor([[2.0] * 3, [0.0] * 3, [-math.inf] * 3, [-math.inf] * 3]))
    untagged = teacher_labels(class_logits(maps, torch.zeros(2, 3)), torch.zeros(2, 3), absent="exclude")
    assert torch.equal(untagged.conf, torch.ones(2, 1, 3))
    assert not bool(untagged.label.any())


def test_gradient_of_generic_logits_runs_through_the_maximum():
    maps = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    maps.requires_grad_()
    tags = torch.tensor([[1.0, 0.0]])

    def loss(maps_BChw: torch.Tensor) -> torch.Tensor:
        return consistency_loss(class_logits(maps_BChw, tags), label, mask, tags, absent="exclude")

    label, mask = torch.ones(1, 4, 4, dtype=torch.int64), torch.ones(1, 4, 4, dtype=torch.bool)
    loss(maps).backward()
    peak = divmod(int(maps[0, 0].argmax()), 4)
    assert abs(float(maps.grad[0, 0][peak])) > 0, "a larger peak shrinks all others"
    assert torch.equal(maps.grad[0, 1], torch.zeros(4, 4, dtype=torch.float64))
    for y, x in (peak, (0, 0), (3, 1)):
        step = torch.zeros_like(maps)
        step[0, 0, y, x] = 1e-3
        with torch.no_grad():
            slope = (loss(maps + step) - loss(maps - step)) / 2e-3
        assert float(maps.grad[0, 0, y, x]) == pytest.approx(float(slope), abs=2e-3, rel=2e-2)


def test_filter_places_background_and_refuses_what_does_not_fit():
    logits = torch.arange(8.0).view(2, 4, 1, 1).requires_grad_()
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    zero = filter_absent(logits, tags, absent="zero", background=1)
    assert zero.flatten().tolist() == [0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 0.0]
    gone = filter_absent(logits, tags, absent="exclude", background=-1)
    assert gone.flatten().tolist() == [0.0, -math.inf, 2.0, 3.0, -math.inf, -math.inf, -math.inf, 7.0]
    zero.sum().backward()
    assert logits.grad.flatten().tolist() == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert filter_absent(gone, tags, absent="zero", background=3).isfinite().all(), "0 x -inf is no number"
    with pytest.raises(ValueError, match="absent 'none': one of zero, exclude"):
        filter_absent(logits, tags, absent="none")
    for background in (4, -5):
        with pytest.raises(ValueError, match="do not fit 4 channels"):
            filter_absent(logits, tags, absent="zero", background=background)
    with pytest.raises(ValueError, match="tags of 4 classes"):
        filter_absent(logits, torch.ones(2, 4), absent="zero")


def square(side: int, at: int, canvas: int = 16) -> torch.Tensor:
    mask = torch.zeros(1, canvas, canvas, dtype=torch.bool)
    mask[:, at : at + side, at : at + side] = True
    return mask


@pytest.mark.parametrize(("side", "ring"), [(1, 8), (2, 12), (5, 24), (10, 44)])
def test_ring_of_a_square(side, ring):
    """fsae.md 8.3: 4k + 4."""
    mask = square(side, 3)
    assert int((dilate(mask, 3) & ~mask).sum()) == ring == 4 * side + 4
    assert int(dilate(square(1, 0), 3).sum()) - 1 == 3, "in the corner of the map"
    assert torch.equal(dilate(mask, 3, 2), dilate(dilate(mask, 3), 3))
    assert torch.equal(dilate(mask, 1, 5), mask)
    assert torch.equal(dilate(mask, 3, 0), mask)


def probability_logits(probs_K: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probs_K).T.log().reshape(1, len(probs_K[0]), 1, len(probs_K))


def test_teacher_labels_by_hand():
    """Background, 1, 2 along a row: confident class 1 in the middle, and what lies around it."""
    logits = probability_logits(
        [
            [0.97, 0.02, 0.01],  # sure background, out of reach
            [0.10, 0.85, 0.05],  # likely, out of reach
            [0.15, 0.80, 0.05],  # ring, kept
            [0.02, 0.96, 0.02],  # sure
            [0.30, 0.10, 0.60],  # ring, too unsure
            [0.05, 0.00, 0.95],  # sure of class 2
            [0.82, 0.10, 0.08],  # ring, background: sharpens from outside
            [0.40, 0.30, 0.30],
        ]
    )
    found = teacher_labels(logits, torch.ones(1, 2), absent="exclude")
    row = {name: value[0, 0].int().tolist() for name, value in found._asdict().items() if name != "conf"}
    assert row == {
        "label": [0, 1, 1, 1, 2, 2, 0, 0],
        "mask": [1, 0, 0, 1, 0, 1, 0, 0],
        "mask_fg": [0, 0, 0, 1, 0, 1, 0, 0],
        "ring": [0, 0, 1, 0, 1, 0, 1, 0],
        "ring_kept": [0, 0, 1, 0, 0, 0, 1, 0],
        "mask_exp": [1, 0, 1, 1, 0, 1, 1, 0],
    }
    assert found.conf[0, 0].tolist() == pytest.approx([0.97, 0.85, 0.8, 0.96, 0.6, 0.95, 0.82, 0.4], abs=1e-6)
    wide = teacher_labels(logits, torch.ones(1, 2), absent="exclude", rings=2)
    assert wide.ring[0, 0].int().tolist() == [0, 1, 1, 0, 1, 0, 1, 1]
    assert torch.equal(teacher_labels(logits, torch.ones(1, 2), absent="exclude", bdry_size=5).ring, wide.ring)
    last = teacher_labels(logits.roll(-1, dims=1), torch.ones(1, 2), absent="exclude", background=2)
    for name in ("mask", "mask_fg", "ring", "mask_exp"):
        assert torch.equal(getattr(last, name), getattr(found, name))
    assert torch.equal((last.label + 1) % 3, found.label)


def test_limits_of_the_rule():
    """fsae.md 8.7: no cutoff above 1 selects anything, and without a ring the mask is the confident one."""
    logits = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0)) * 5
    tags = torch.ones(2, 3)
    never = teacher_labels(logits, tags, absent="zero", p_cutoff=1.01)
    assert not bool(never.mask_exp.any())
    bare = teacher_labels(logits, tags, absent="zero", bdry_size=1)
    assert bool(bare.mask.any())
    assert torch.equal(bare.mask_exp, bare.mask)
    equal = teacher_labels(logits, tags, absent="zero", bdry_cutoff=0.95)
    assert torch.equal(equal.mask_exp, equal.mask), "bdry_cutoff = p_cutoff disables the ring"
    for size in (0, 2, 4):
        with pytest.raises(ValueError, match="odd"):
            teacher_labels(logits, tags, absent="zero", bdry_size=size)


def test_teacher_labels_of_another_boundary_case_have_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    found = teacher_labels(logits, torch.ones(1, 2), absent="zero")
    assert not found.conf.requires_grad


@pytest.mark.parametrize(("share", "expected"), [(1.0, 3.0445), (0.3, 0.9133)])
def test_size_of_the_loss(share, expected):
    """fsae.md 8.4: a uniform student on 21 channels."""
    mask = (torch.arange(100) < 100 * share).view(1, 10, 10)
    label = torch.randint(0, 21, (1, 10, 10), generator=torch.Generator().manual_seed(0))
    loss = consistency_loss(torch.zeros(1, 21, 10, 10), label, mask, torch.ones(1, 20), absent="zero")
    assert float(loss) == pytest.approx(expected, abs=1e-4)
    chosen = consistency_loss(
        torch.zeros(1, 21, 10, 10), label, mask, torch.ones(1, 20), absent="zero", over="selected"
    )
    assert float(chosen) == pytest.approx(math.log(21), abs=1e-5)


def test_student_that_is_the_teacher():
    """fsae.md 8.7: L_con = mean(-ln max q)."""
    logits = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(5))
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    for absent in ("zero", "exclude"):
        found = teacher_labels(logits, tags, absent=absent, p_cutoff=0.0)
        assert bool(found.mask.all())
        loss = consistency_loss(logits, found.label, found.mask, tags, absent=absent)
        assert float(loss) == pytest.approx(float(-found.conf.log().mean()), abs=1e-6)


def test_loss_ignores_what_the_mask_leaves_out():
    logits = torch.zeros(1, 3, 1, 2, requires_grad=True)
    label, tags = torch.tensor([[[1, 2]]]), torch.tensor([[1.0, 0.0]])
    loss = consistency_loss(logits, label, torch.tensor([[[True, False]]]), tags, absent="exclude")
    assert loss.item() == pytest.approx(math.log(2) / 2)
    loss.backward()
    assert logits.grad[0, :, 0, 0].tolist() == pytest.approx([0.25, -0.25, 0.0])
    assert logits.grad[0, :, 0, 1].tolist() == [0.0, 0.0, 0.0]
    for over in ("all", "selected"):
        logits.grad = None
        none = torch.zeros(1, 1, 2, dtype=torch.bool)
        empty = consistency_loss(logits, label, none, tags, absent="exclude", over=over)
        empty.backward()
        assert empty.item() == 0.0
        assert not bool(logits.grad.any())
    with pytest.raises(ValueError, match="over 'some': one of all, selected"):
        consistency_loss(logits, label, label > 0, tags, absent="zero", over="some")


def test_bins_of_the_card():
    conf = torch.tensor([[[0.0, 0.39, 0.4, 0.59, 0.6, 0.8, 0.9499, 0.95, 0.99, 1.0]]])
    found = confidence_bins(conf, (0.4, 0.6, 0.8, 0.95, 0.99))
    assert found.shape == (6, 1, 1, 10)
    assert found.dtype == torch.bool
    assert found[:, 0, 0].int().argmax(dim=0).tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 5, 5]
    assert torch.equal(found.sum(dim=0), torch.ones(1, 1, 10, dtype=torch.int64))
    assert bool(confidence_bins(conf, ()).all())
    with pytest.raises(ValueError, match="do not rise"):
        confidence_bins(conf, (0.4, 0.4))


def test_teacher_follows_what_the_student_trains():
    """fsae.md 8.5: with a constant student the gap halves every 692.8 steps."""
    student = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.BatchNorm1d(1))
    student[1].requires_grad_(False)
    teacher = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.BatchNorm1d(1)).requires_grad_(False).double()
    with torch.no_grad():
        for parameter in student.double().parameters():
            parameter.fill_(1.0)
        for parameter in teacher.parameters():
            parameter.fill_(0.0)
        student[2].running_mean.fill_(7.0)
    for _ in range(693):
        average_trained(teacher, student, 0.999)
    assert math.log(0.5) / math.log(0.999) == pytest.approx(692.8, abs=0.1)
    assert 1 - float(teacher[0].weight) == pytest.approx(0.999**693, rel=1e-9)
    assert 1 - float(teacher[2].bias) == pytest.approx(0.5, abs=1e-3)
    assert float(teacher[1].weight) == 0.0, "frozen"
    assert float(teacher[2].running_mean) == 0.0, "a buffer"
    before = teacher[0].weight.clone()
    average_trained(teacher, student, 1.0)
    assert torch.equal(teacher[0].weight, before)
    average_trained(teacher, student, 0.0)
    assert torch.equal(teacher[0].weight, student[0].weight)
    with pytest.raises(ValueError, match="differ in 0"):
        average_trained(teacher[0], student, 0.5)
