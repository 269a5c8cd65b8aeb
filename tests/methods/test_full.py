"""Full supervision."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import pytest
import torch

from harness.api.method import Batch, Progress
from methods.full.config import METHOD, FullConfig
from methods.full.presets import preset
from search_spaces.full import SPACE


def test_golden_curve():
    curve = golden.train(golden.make("full"))
    golden.check("full", "default", curve)
    assert list(curve) == ["seg"]
    assert curve["seg"][-1] < curve["seg"][0]


def test_uniform_logits_cost_ln_k_and_ignored_pixels_nothing():
    method = golden.make("full")
    torch.nn.init.zeros_(method.net.decoder.classify.weight)
    data = golden.batch(method)
    loss = method.step(data, Progress(0, 10)).losses["seg"]
    assert float(loss.detach()) == pytest.approx(1.3862944, rel=1e-5)
    ignored = Batch(data.ids, data.views, data.tags_BC, torch.full_like(data.label_BHW, 255), None)
    assert not method.step(ignored, Progress(0, 10)).losses["seg"].any()


def test_it_has_no_classifier_and_reads_masks_only():
    method = golden.make("full")
    assert not [n for n, _ in method.named_parameters() if "classifier" in n]
    assert (METHOD.labels, METHOD.targets, METHOD.network_of) == (("masks", "pseudo"), ("segmentation",), "cam")
    data = golden.batch(method)
    with pytest.raises(ValueError, match="labels=masks"):
        method.step(Batch(data.ids, data.views, data.tags_BC, None, None), Progress(0, 10))
    with pytest.raises(TypeError, match="makes no CAMs"):
        method.cam_logits(data.views["view1"])
    with pytest.raises(ValueError, match="not cam"):
        method.predict(data.views["view1"], want=frozenset({"cam"}))
    assert method.predict(data.views["view1"], want=frozenset({"segmentation"})).segmentation_BKhw.shape == (
        4, 4, 6, 6)  # fmt: skip


def test_datasets_without_background_have_one_output_per_class():
    assert golden.make("full", has_background=False).net.decoder.classify.out_channels == 3


@pytest.mark.parametrize("images", [4, 1])
def test_deeplab_learns_and_its_batch_norm_moves_in_update_only(images):
    method = golden.make("full", decoder="deeplabv3plus")
    norm = method.net.decoder.fuse[0][1]
    data = golden.batch(method, images=images)
    out = method.step(data, Progress(0, 20))
    assert not norm.running_mean.any()
    assert all(torch.isfinite(v).all() for v in out.stats.values())
    method.update(out.stats, Progress(0, 20))
    assert norm.running_mean.any()
    curve = golden.train(method, steps=8)
    assert curve["seg"][-1] < curve["seg"][0]
    found = method.predict(data.views["view1"], want=frozenset({"segmentation"})).segmentation_BKhw
    assert found.shape == (images, 4, 12, 12)
    assert {"rates", "decoder_width"} <= method.describe().keys()


@pytest.mark.parametrize(("backbone", "decoder", "side"), [("resnet18", "deeplabv2", 6), ("shapes_cnn", "largefov", 6)])
def test_cnns_learn_under_decoders_of_one_map(backbone, decoder, side):
    method = golden.make("full", backbone=backbone, decoder=decoder)
    curve = golden.train(method, steps=6)
    assert curve["seg"][-1] < curve["seg"][0]
    found = method.predict(torch.zeros(1, 3, 48, 48), want=frozenset({"segmentation"})).segmentation_BKhw
    assert found.shape == (1, 4, side, side)


@pytest.mark.parametrize("backbone", ["vit_relpos_small_patch16_224", "eva02_tiny_patch14_224"])
def test_deeplab_learns_on_vits_that_are_not_plain_and_serves_any_image(backbone):
    small = golden.make("full", decoder="deeplabv3plus")
    torch.manual_seed(0)
    method = type(small)(small.config, dataclasses.replace(small.info, backbone=backbone)).train()
    curve = golden.train(method, steps=6)
    assert curve["seg"][-1] < curve["seg"][0]
    found = method.predict(torch.randn(1, 3, 75, 130), want=frozenset({"segmentation"})).segmentation_BKhw
    assert found.shape[:2] == (1, 4)
    assert torch.isfinite(found).all()


def test_knobs_move_the_loss():
    def loss(**knobs):
        method = golden.make("full", **knobs)
        torch.manual_seed(1)
        return float(method.step(golden.batch(method), Progress(3, 20)).losses["seg"].detach())

    assert len({loss(), loss(drop_path=0.6), loss(decoder_width=2048), loss(imagenet_normalisation=True)}) == 4


@pytest.mark.parametrize("family", ["voc", "coco", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
def test_presets_are_legal_and_inside_the_search_space(family, tier):
    values = {k: v.default for k, v in FullConfig.knobs().items()} | dict(preset(family, tier, "default").knobs)
    assert FullConfig(**values).problems() == []
    assert SPACE.check(FullConfig, values) == []
