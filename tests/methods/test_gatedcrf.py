"""The gated CRF method: golden curves, start, kernel sizes, what it reads."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import pytest
import sparse_batches as sparse
import torch

from harness.api.method import Progress
from methods.gatedcrf.losses import gated_crf_loss


@pytest.mark.parametrize("variant", ["default", "released"])
def test_golden_curve(variant):
    method = sparse.make("gatedcrf", variant)
    curve = golden.train(method, make_batch=lambda step: sparse.batch(method, step % 2))
    golden.check("gatedcrf", variant, curve)
    assert list(curve) == ["seg", "crf"]
    assert curve["crf"][0] is None, "it starts after half a percent of the run"
    assert curve["seg"][-1] < curve["seg"][0]


def test_it_starts_behind_half_a_percent_of_the_run():
    """sparse_baselines.md 3.2: progress > .005 is step 451 of 90,000, counted from 0."""
    method = sparse.make("gatedcrf")
    steps = {90_000: (0, 450, 451), 200: (0, 1, 2), 300: (0, 1, 2)}
    found = {total: [method.started(Progress(step, total)) for step in at] for total, at in steps.items()}
    assert found == {total: [False, False, True] for total in steps}
    data = sparse.batch(method)
    assert list(method.step(data, Progress(1, 200)).losses) == ["seg"]
    assert list(method.step(data, Progress(2, 200)).losses) == ["seg", "crf"]
    assert list(sparse.make("gatedcrf", crf_start=0.0).step(data, Progress(0, 200)).losses) == ["seg", "crf"]


@pytest.mark.parametrize(
    ("knobs", "gated"), [({}, (True, False)), ({"gate_padding": False, "gate_labelled": True}, (False, True))]
)
def test_the_kernel_reads_the_uncoloured_view_behind_its_gates(knobs, gated):
    method = sparse.make("gatedcrf", w_crf=0.5, **knobs)
    data = sparse.batch(method)
    data = dataclasses.replace(data, views={**data.views, "plain": data.views["view1"].flip(-1)})
    found = method.step(data, Progress(10, 20)).losses["crf"]
    source, target = gated
    expected = gated_crf_loss(
        method.net.logits(data.views["view1"]),
        data.views["plain"],
        kernels=[(1.0, 6.0, 0.1)],
        source_BHW=data.content_BHW if source else None,
        target_BHW=data.label_BHW == 255 if target else None,
    )
    torch.testing.assert_close(found, 0.5 * expected)


def test_a_second_kernel_and_sizes():
    method = sparse.make("gatedcrf", w_place=0.2, sigma_xy=3.0, radius=2)
    assert method.kernels == [(1.0, 3.0, 0.1), (0.2, 3.0, None)]
    assert method.describe()["radius"] == 2, "shapes_vit has a map of stride 4"
    assert method.config.last_start() == 0.005
