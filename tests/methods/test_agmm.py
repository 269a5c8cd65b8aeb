"""AGMM: golden curves, what a step is made of, and how its parts are routed."""

from __future__ import annotations

import dataclasses
import math

import golden_curves as golden
import pytest
import sparse_batches as sparse
import torch
from torch.nn import functional as F

from benchmarks.reference import agmm as reference
from harness.api.method import Progress
from methods.agmm.config import ABLATIONS, METHOD
from methods.agmm.gaussian import centroids, gaussian, presence
from methods.agmm.losses import class_loss, gmm_losses, separation_loss
from methods.agmm.tables import PAPER
from methods.parts.views.sparse_views import TAGS

EARLY = Progress(0, 20)


@pytest.mark.parametrize("variant", ["default", "released"])
def test_golden_curve(variant):
    method = sparse.make("agmm", variant)
    curve = golden.train(method, make_batch=lambda step: sparse.batch(method, step % 2))
    golden.check("agmm", variant, curve)
    assert list(curve) == ["seg", "cls", "gmm_self", "gmm_label", "sep"]
    assert curve["seg"][-1] < curve["seg"][0]


def test_a_step_is_the_sum_of_the_operators():
    """The terms, from the public operators on dense maps, with a weight each."""
    method = sparse.make("agmm", w_gmm=0.5, w_1=3.0, w_2=0.25, w_sep=0.7, w_cls=2.0, align_corners=False)
    data = sparse.batch(method)
    found = method.step(data, EARLY).losses
    features, low = method.net.maps(data.views["view1"])
    logits = F.interpolate(low, data.label_BHW.shape[-2:], mode="bilinear", align_corners=False)
    _, present = presence(data.label_BHW, 4)
    centre = centroids(features, data.label_BHW, 4)
    maps = gaussian(features, centre, present, data.content_BHW)
    first, second = gmm_losses(logits, maps, data.label_BHW, present, data.content_BHW)
    expected = {
        "seg": F.cross_entropy(logits, data.label_BHW, ignore_index=255),
        "cls": 2.0 * class_loss(logits, data.extra[TAGS], data.content_BHW),
        "gmm_self": 1.5 * first,
        "gmm_label": 0.125 * second,
        "sep": 0.7 * separation_loss(centre, present),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_a_released_step_is_the_published_structure():
    """agmm.md 7.1, 7.2: logits with aligned corners, all else without, sums of centres; one crop without a label, and
    one with a single pixel in its corner."""
    method = sparse.make("agmm", "released")
    data = sparse.batch(method)
    label = data.label_BHW.clone()
    label[2:] = 255
    label[3, -1, -1] = 2
    found = method.step(dataclasses.replace(data, label_BHW=label), EARLY).losses
    features, low = method.net.maps(data.views["view1"])
    logits = F.interpolate(low, label.shape[-2:], mode="bilinear", align_corners=True)
    expected = reference.losses(features, logits, label, data.extra[TAGS], data.content_BHW)
    _, present = presence(label, 4)
    # The reference has the mean of centres; by the definition of 2.4.4 with their sum:
    total_KD = centroids(features.detach(), label, 4).sum(0)
    apart = [
        float((total_KD[i] - total_KD[j]).abs().mean())
        for i in range(4)
        for j in range(i)
        if present.sum(0)[[i, j]].all()
    ]
    expected["sep"] = torch.tensor(sum(math.exp(-d * d) for d in apart) / len(apart))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("base", ["seg"]),
        ("no_gmm", ["seg", "cls", "sep"]),
        ("no_sep", ["seg", "cls", "gmm_self", "gmm_label"]),
        ("no_cls", ["seg", "gmm_self", "gmm_label", "sep"]),
    ],
)
def test_ablations_leave_terms_out(name, left):
    method = sparse.make("agmm", **ABLATIONS[name])
    assert list(method.step(sparse.batch(method), EARLY).losses) == left


@pytest.mark.parametrize("variance", ["constant", "weighted", "unweighted", "learned"])
def test_every_variance_gives_other_maps(variance):
    method = sparse.make("agmm", **ABLATIONS[f"var_{variance}"])
    plain = sparse.make("agmm", sharpness=2.0)
    found = [float(m.step(sparse.batch(m), EARLY).losses["gmm_self"].detach()) for m in (method, plain)]
    assert found[0] != pytest.approx(found[1], rel=1e-3)
    assert [n for n, _ in method.named_parameters() if "sharpness" in n] == (
        ["log_sharpness"] if variance == "learned" else []
    )


def test_the_share_of_crops_without_a_label_is_logged():
    method = sparse.make("agmm")
    data = sparse.batch(method)
    assert float(method.step(data, EARLY).logged["unlabelled_crops"]) == 0.0
    label = data.label_BHW.clone()
    label[1] = 255
    assert float(method.step(dataclasses.replace(data, label_BHW=label), EARLY).logged["unlabelled_crops"]) == 0.25


def test_a_learned_sharpness_learns_and_is_told_apart_by_class():
    method = sparse.make("agmm", variance="learned")
    golden.train(method, steps=3, make_batch=lambda step: sparse.batch(method, step))
    moved = method.log_sharpness.detach()
    assert bool((moved != 0).all())
    assert len(set(moved.tolist())) == 4


@pytest.mark.parametrize("route", ["none", "g", "p"])
def test_the_detached_side_gets_no_gradient_of_the_first_loss(route):
    """With the prediction detached the classifier learns nothing from it; with the maps detached it still does."""
    method = sparse.make("agmm", detach=route)
    loss = method.step(sparse.batch(method), EARLY).losses["gmm_self"]
    (grad,) = torch.autograd.grad(loss, method.net.decoder.classify.weight, allow_unused=True)
    assert (grad is not None and bool(grad.any())) == (route != "p")


def test_the_first_loss_starts_and_rises():
    method = sparse.make("agmm", l1_start=0.25, l1_ramp=0.5)
    assert [method.rise(Progress(s, 20)) for s in (0, 5, 10, 15, 19)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert "gmm_self" not in method.step(sparse.batch(method), EARLY).losses
    assert "gmm_label" in method.step(sparse.batch(method), EARLY).losses
    assert method.config.last_start() == 0.25


def test_centres_of_the_group_and_their_moving_average():
    """Per class over images that have it; after a step the average holds it, then moves by a tenth."""
    own = torch.tensor([[[2.0], [0.0]], [[4.0], [6.0]]])
    present = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    batch = sparse.make("agmm", pooling="batch", num_classes=1)
    assert batch.pooled(own, present, {})[0].flatten().tolist() == [3.0, 6.0]
    method = sparse.make("agmm", pooling="ema", num_classes=1, bank_momentum=0.9)
    method.bank_KD, method.banked_K = torch.zeros(2, 1), torch.zeros(2)
    stats: dict[str, torch.Tensor] = {}
    assert method.pooled(own, present, stats)[0].flatten().tolist() == pytest.approx([3.0, 6.0])
    method.update({k: v / 2 for k, v in stats.items()}, EARLY)
    assert method.bank_KD.flatten().tolist() == pytest.approx([3.0, 6.0])
    later: dict[str, torch.Tensor] = {}
    only_first = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert method.pooled(own, only_first, later)[0, 0].item() == pytest.approx(0.9 * 3 + 0.1 * 2)
    method.update(later, EARLY)
    assert method.bank_KD.flatten().tolist() == pytest.approx([2.9, 6.0])


@pytest.mark.parametrize("case", ["no label", "all padding"])
@pytest.mark.parametrize("pooling", ["image", "ema"])
def test_crops_without_labels_are_finite(case, pooling):
    method = sparse.make("agmm", pooling=pooling, variance="weighted")
    data = sparse.batch(method)
    data = dataclasses.replace(data, label_BHW=torch.full_like(data.label_BHW, 255))
    if case == "all padding":
        data = dataclasses.replace(data, content_BHW=torch.zeros_like(data.content_BHW))
    out = method.step(data, EARLY)
    assert float(out.logged["unlabelled_crops"]) == 1.0
    torch.stack(list(out.losses.values())).sum().backward()
    assert all(float(out.losses[n].detach()) == 0 for n in ("seg", "gmm_self", "gmm_label", "sep"))
    assert all(torch.isfinite(v) for v in out.losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    method.update(out.stats, EARLY)
    assert all(torch.isfinite(v).all() for v in method.state_dict().values())


def test_the_labels_of_the_whole_image_decide_what_it_lacks():
    """agmm.md 7.5: labels elsewhere in the image are allowed in the crop, without being in it."""
    method = sparse.make("agmm")
    data = sparse.batch(method)
    losses = {
        name: float(method.step(dataclasses.replace(data, extra=extra, **more), EARLY).losses["cls"].detach())
        for name, extra, more in (
            ("held", {TAGS: torch.ones_like(data.extra[TAGS])}, {}),
            ("usual", data.extra, {}),
            ("tags with background", {}, {"tags_BK": data.extra[TAGS]}),
            ("tags and labels", {}, {}),
        )
    }
    assert losses["held"] == 0.0
    assert losses["usual"] > 0.0
    assert losses["usual"] == losses["tags with background"] == losses["tags and labels"]


def test_what_it_reads_and_makes():
    assert METHOD.targets == ("segmentation",)
    assert "masks" not in METHOD.labels
    assert {"base", "no_gmm", "no_sep", "no_cls", "detach_g", "detach_p", "sum"} <= ABLATIONS.keys()
    rows = {row.ablation for row in PAPER.table("3").rows}
    assert rows <= ABLATIONS.keys()
    assert sparse.make("agmm", has_background=False).net.decoder.classify.out_channels == 3
