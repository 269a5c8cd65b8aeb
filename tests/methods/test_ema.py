"""The mean teacher: golden curves, its views, its teacher's steps, CutMix."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import numpy as np
import pytest
import sparse_batches as sparse
import torch

from harness.api.dataset import Sample
from harness.api.method import Progress
from methods.ema.method import boxes, mixed
from methods.parts.nets.deeplab import GroupBatchNorm


@pytest.mark.parametrize("variant", ["default", "released"])
def test_golden_curve(variant):
    method = sparse.make("ema", variant, tau=0.3)
    curve = golden.train(method, make_batch=lambda step: sparse.batch(method, step % 2))
    golden.check("ema", variant, curve)
    assert list(curve) == ["seg", "consistency"]
    assert curve["seg"][-1] < curve["seg"][0]


def test_half_of_each_and_nothing_of_the_teacher_without_its_weight():
    method, alone = sparse.make("ema"), sparse.make("ema", w_u=0.0)
    data = sparse.batch(method)
    found = method.step(data, Progress(0, 20)).losses
    assert found["seg"] == alone.step(data, Progress(0, 20)).losses["seg"]
    torch.testing.assert_close(
        2 * found["seg"],
        method.partial_cross_entropy(
            method.at_size(method.net.logits(data.views["view1"]), data.label_BHW.shape[-2:]).log_softmax(1),
            data.label_BHW,
        ),
    )
    assert "consistency" not in alone.step(data, Progress(0, 20)).losses


def test_the_teacher_copies_the_first_student_and_then_follows():
    method = sparse.make("ema", m=0.999)
    out = method.step(sparse.batch(method), Progress(0, 20))
    weight, taught = (net.decoder.classify.weight for net in (method.net, method.teacher))
    with torch.no_grad():
        weight += 1.0
    method.update(out.stats, Progress(0, 20))
    torch.testing.assert_close(taught, weight)
    with torch.no_grad():
        weight += 1.0
    method.update({}, Progress(1, 20))
    torch.testing.assert_close(taught, weight - 0.5)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    method.update({}, Progress(10**6, 2 * 10**6))
    assert method.config.m == pytest.approx(0.9), "fitted: 24,700 steps of .999 are 20 of .9"


def test_the_published_teacher_starts_over_at_every_epoch():
    """Against the published order: before step t of an epoch it moves by min(1 - 1/(t+1), m) to the student of then."""
    method = sparse.make("ema", teacher_restart=0.25, m=0.7, card_iterations=20)
    weight, taught = (net.decoder.classify.weight for net in (method.net, method.teacher))
    expected = taught.clone()
    for step in range(12):
        keep = min(1 - 1 / (step % 5 + 1), method.config.m)
        expected = keep * expected + (1 - keep) * weight.detach()
        torch.testing.assert_close(taught, expected)
        with torch.no_grad():
            weight.add_(step + 1.0)
        method.update({}, Progress(step, 20))
    assert method.config.m == pytest.approx(0.7)
    assert sparse.make("ema").since(Progress(12, 20)) == 12


@pytest.mark.parametrize("training", [False, True])
def test_the_teacher_stays_as_it_is_whatever_mode_it_runs_in(training):
    method = sparse.make("ema", teacher_training=training)
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    stats = method.step(sparse.batch(method), Progress(0, 20)).stats
    assert all(torch.equal(v, before[k]) for k, v in method.teacher.state_dict().items())
    assert all(not m.seen for m in method.teacher.modules() if isinstance(m, GroupBatchNorm))
    assert not any("teacher" in name for name in stats)
    assert method.teacher.training


def test_squares_are_cut_out_of_the_students_view_alone():
    method = sparse.make("ema", cutout_side=0.25, strong_colour=False)
    views = method.transform()
    sample = Sample("a", np.full((64, 64, 3), 255, np.uint8), np.ones(3, np.float32), np.zeros((64, 64), np.uint8))
    holes = set()
    for seed in range(20):
        made = views(sample, np.random.default_rng(seed))
        hole = made.views["view1"] == 0
        real = made.content_HW if made.content_HW is not None else torch.ones(48, 48, dtype=torch.bool)
        assert not (made.views["teacher"] == 0)[:, real].any()
        assert bool((hole[0] == hole[2]).all())
        holes.add(int(hole[0].sum()))
    assert min(holes) == 144
    assert max(holes) == 288
    plain = sparse.make("ema", cutout=False, strong_colour=False).transform()(sample, np.random.default_rng(0))
    assert torch.equal(plain.views["view1"], plain.views["teacher"])


def test_boxes_and_what_they_mix():
    torch.manual_seed(0)
    box = boxes(400, (40, 60), 1.0, torch.device("cpu"))
    area = box.float().mean((1, 2))
    assert float(area.min()) > 0.01
    assert float(area.max()) < 0.45
    assert not boxes(10, (40, 60), 0.0, torch.device("cpu")).any()
    hole = torch.zeros(2, 1, 2, dtype=torch.bool)
    hole[1, 0, 1] = True
    label, logits = torch.tensor([[[1, 2]], [[3, 4]]]), torch.arange(8.0).view(2, 2, 1, 2)
    mixed_label, mixed_logits = mixed(hole, (label, logits))
    assert mixed_label.tolist() == [[[1, 2]], [[3, 2]]]
    assert mixed_logits[1].flatten().tolist() == [4, 1, 6, 3]


def test_crops_without_labels_are_finite():
    method = sparse.make("ema", tau=0.0)
    data = sparse.batch(method)
    data = dataclasses.replace(data, label_BHW=torch.full_like(data.label_BHW, 255))
    losses = method.step(data, Progress(3, 20)).losses
    assert float(losses["seg"].detach()) == 0.0
    assert 0 < float(losses["consistency"].detach()) < 10


def test_both_networks_predict():
    method = sparse.make("ema")
    with torch.no_grad():
        method.teacher.decoder.classify.bias += 1.0
    images, want = sparse.batch(method).views["view1"], frozenset({"segmentation"})
    student, teacher = (method.predict(images, want=want, weights=w).segmentation_BKhw for w in ("student", "teacher"))
    torch.testing.assert_close(teacher, student + 1.0)
