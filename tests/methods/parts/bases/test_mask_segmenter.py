"""The segmenter behind masks: networks by backbone and decoder, optimisers, views, sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.api.dataset import Sample
from harness.api.method import Batch, BuildInfo, Progress
from harness.errors import BadInput
from methods.full.presets import preset as full_preset
from methods.parts.bases.mask_segmenter import MaskSegmenter, build
from methods.parts.bases.segmenter_knobs import MaskSegmenterKnobs, segmenter_sizes, segmenter_values
from methods.parts.nets.decoders import DeepLabV2, LargeFOV
from methods.parts.nets.deeplab import DeepLabV3Plus

INFO = BuildInfo(
    num_classes=3,
    has_background=True,
    crop=64,
    iterations=40,
    group=4,
    tier="smoke",
    variant="default",
    labels="tags",
    backbone="shapes_cnn",
    backbone_weights=None,
    decoder="deeplabv2",
    stage="train-segmenter",
)


@dataclass(frozen=True, kw_only=True)
class Config(MaskSegmenterKnobs):
    """A method's config."""


def made(knobs: dict | None = None, **info) -> MaskSegmenter:
    torch.manual_seed(0)
    info = {"backbone_weights": None if info.get("backbone", "shapes").startswith("shapes") else "random", **info}
    return build(Config(**(knobs or {})), dataclasses.replace(INFO, **info)).train()


def batch(side: int = 64) -> Batch:
    """Squares of three colours on grey, of which one is unlabelled along its border."""
    images = torch.zeros(4, 3, side, side)
    label = torch.zeros(4, side, side, dtype=torch.int64)
    for i in range(4):
        k = i % 3
        here = slice(8 + 4 * i, 8 + 4 * i + side // 3)
        images[i, k, here, here] = 2.0
        label[i, here, here] = k + 1
        label[i, 8 + 4 * i, here] = 255
    return Batch(tuple("abcd"), {"view1": images}, torch.zeros(4, 3), label, None)


@pytest.mark.parametrize(
    ("backbone", "decoder", "kind", "side"),
    [
        ("shapes_vit", "largefov", LargeFOV, 8),
        ("vit_tiny_patch16_224", "largefov", LargeFOV, 4),
        ("shapes_vit", "deeplabv3plus", DeepLabV3Plus, 16),
        ("shapes_cnn", "deeplabv3plus", DeepLabV3Plus, 16),
        ("resnet18", "deeplabv2", DeepLabV2, 8),
        ("mobilenetv2_100", "deeplabv2", DeepLabV2, 8),
        ("mobilenetv2_100", "largefov", LargeFOV, 4),
        ("resnet18", "deeplabv3plus", DeepLabV3Plus, 16),
    ],
)
def test_decoders_stand_on_backbones(backbone, decoder, kind, side):
    method = made(backbone=backbone, decoder=decoder)
    assert isinstance(method.net.decoder, kind)
    group = batch()
    found = method.predict(group.views["view1"], want=frozenset({"segmentation"})).segmentation_BKhw
    assert found.shape == (4, 4, side, side)
    out = method.step(group, Progress(0, 40))
    out.losses["seg"].backward()
    expected = F.cross_entropy(
        F.interpolate(method.net.logits(group.views["view1"]), (64, 64), mode="bilinear"),
        group.label_BHW,
        ignore_index=255,
    )
    assert float(out.losses["seg"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters())


def test_deeplabv2_needs_a_cnn():
    with pytest.raises(BadInput, match="deeplabv2 does not work on the tokens"):
        made(backbone="shapes_vit")


def test_sgd_falls_by_a_power_and_the_decoder_learns_ten_times_faster():
    method = made()
    plan = method.optimizers()[0]
    assert isinstance(plan.optimizer, torch.optim.SGD)
    assert [g["lr"] for g in plan.optimizer.param_groups] == [1e-3, 1e-2]
    assert [g["momentum"] for g in plan.optimizer.param_groups] == [0.9, 0.9]
    assert [g["weight_decay"] for g in plan.optimizer.param_groups] == [5e-4, 5e-4]
    assert plan.factor(20) == pytest.approx(0.5**0.9)
    heads = {id(p) for p in plan.optimizer.param_groups[1]["params"]}
    assert heads == {id(p) for p in method.net.decoder.parameters()}


def test_adamw_is_that_of_full():
    method = made({"seg_optimizer": "adamw", "seg_lr": 2e-4, "seg_warmup": 0.1}, decoder="deeplabv3plus")
    plan = method.optimizers()[0]
    assert isinstance(plan.optimizer, torch.optim.AdamW)
    assert sorted({g["lr"] for g in plan.optimizer.param_groups}) == pytest.approx([2e-4, 2e-3])
    assert [plan.factor(s) for s in (0, 4, 22, 40)] == pytest.approx([0.1, 1.0, 0.5, 0.0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns(optimizer):
    method = made({"seg_optimizer": optimizer, "seg_lr": 2e-3}, decoder="deeplabv3plus")
    plan, group, losses = method.optimizers()[0], batch(), []
    for _ in range(12):
        out = method.step(group, Progress(0, 40))
        out.losses["seg"].backward()
        plan.optimizer.step()
        plan.optimizer.zero_grad()
        method.update(out.stats, Progress(0, 40))
        losses.append(float(out.losses["seg"].detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert method.net.decoder.fuse[0][1].running_mean.any()


def test_labels_follow_the_view_and_padding_is_ignored():
    method = made({"seg_long_min": 0.5, "seg_long_max": 0.55, "seg_flip": 0.0})
    image = np.zeros((40, 60, 3), np.uint8)
    label = np.zeros((40, 60), np.uint8)
    image[10:30, 30:], label[10:30, 30:] = 255, 2
    views = method.transform()(Sample("a", image, np.ones(3, np.float32), label), np.random.default_rng(0))
    assert views.views["view1"].shape == (3, 64, 64)
    bright = views.views["view1"][0] > 0.3
    assert bool((views.label_HW[bright] == 2).float().mean() > 0.9)
    assert bool((views.label_HW[~views.content_HW] == 255).all())
    assert int((views.label_HW != 255).sum()) == int(views.content_HW.sum())


def test_nothing_but_ignored_pixels_costs_nothing():
    method, group = made(), batch()
    loss = method.step(dataclasses.replace(group, label_BHW=torch.full_like(group.label_BHW, 255)), Progress(0, 9))
    assert float(loss.losses["seg"].detach()) == 0
    with pytest.raises(ValueError, match="the batch has none"):
        method.step(dataclasses.replace(group, label_BHW=None), Progress(0, 9))


def test_sizes_and_knobs_of_small_tiers_are_those_of_full():
    for family, tier in (("shapes", "smoke"), ("voc", "lab")):
        full = full_preset(family, tier, "default")
        sizes, knobs = segmenter_sizes(family, tier), segmenter_values(family, tier)
        assert (sizes["backbone"], sizes["decoder"], sizes["crop"]) == (full.backbone, full.decoder, full.crop)
        assert knobs["seg_lr"] == full.knobs["lr"]
        assert Config(**knobs).problems() == []
    assert segmenter_values("voc", "paper") == {}
    assert segmenter_sizes("coco", "paper", backbone="resnet50.tv_in1k") == {
        "backbone": "resnet50.tv_in1k", "decoder": "deeplabv2", "crop": 448, "batch": 10, "group": 10,
        "iterations": 100000,
    }  # fmt: skip


def test_rules():
    assert Config().problems() == []
    found = {p.where for p in Config(seg_optimizer="adam", seg_lr=0.0, seg_long_min=2.0, seg_momentum=1.0).problems()}
    assert found == {"seg_optimizer", "seg_lr", "seg_long_min", "seg_momentum"}


@pytest.mark.parametrize("knob", sorted(MaskSegmenterKnobs.knobs()))
def test_every_knob_is_of_this_stage_alone(knob):
    assert MaskSegmenterKnobs.knobs()[knob].metadata["stages"] == ("train-segmenter",)
