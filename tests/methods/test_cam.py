"""The CAM baseline."""

from __future__ import annotations

import golden_curves as golden
import pytest
import torch

from harness.api.method import Batch, Progress
from harness.errors import BadInput
from methods.cam.config import METHOD, CamConfig
from methods.cam.presets import preset
from methods.parts.ops.cam import threshold_labels
from search_spaces.cam import SPACE


def losses(method, step, total=golden.STEPS, seed=0):
    torch.manual_seed(step)
    return method.step(golden.batch(method, seed), Progress(step, total)).losses


def test_golden_curve():
    curve = golden.train(golden.make("cam"))
    golden.check("cam", "default", curve)
    assert curve["cls"][-1] < curve["cls"][0]


def test_a_changed_curve_needs_a_raised_version(tmp_path):
    golden.check("cam", "default", {"cls": [1.0]}, folder=tmp_path, write=True)
    golden.check("cam", "default", {"cls": [1.00005]}, folder=tmp_path, write=False)
    for write in (False, True):
        with pytest.raises(AssertionError, match="no version did"):
            golden.check("cam", "default", {"cls": [1.1]}, folder=tmp_path, write=write)
    path = tmp_path / "cam_default.json"
    path.write_text(path.read_text().replace('"cam": ', '"cam": 9'))
    with pytest.raises(AssertionError, match="is old"):
        golden.check("cam", "default", {"cls": [1.1]}, folder=tmp_path, write=False)
    golden.check("cam", "default", {"cls": [1.1]}, folder=tmp_path, write=True)
    golden.check("cam", "default", {"cls": [1.1]}, folder=tmp_path, write=False)


def test_terms_start_where_the_config_says():
    method = golden.make("cam", seg_start=0.5)
    assert list(losses(method, 9)) == ["cls"]
    late = losses(method, 10)
    assert list(late) == ["cls", "seg"]
    assert all(torch.isfinite(v) and v.ndim == 0 and v.requires_grad for v in late.values())
    assert list(losses(golden.make("cam", w_seg=0.0), 19)) == ["cls"]


def test_segmentation_weight_is_applied():
    light = losses(golden.make("cam"), 10)["seg"]
    heavy = losses(golden.make("cam", w_seg=0.3), 10)["seg"]
    assert float((heavy / light).detach()) == pytest.approx(3, rel=1e-5)


@pytest.mark.parametrize(
    ("knob", "value"),
    [("pseudo_low", 0.05), ("pseudo_high", 0.95), ("cam_scales", (1.0, 0.5)), ("par_iterations", 2),
     ("par_dilations", (1, 8)), ("drop_path", 0.5), ("imagenet_normalisation", True), ("decoder_width", 2048)],
)  # fmt: skip
def test_a_knob_moves_a_loss(knob, value):
    before = losses(golden.make("cam"), 10)
    after = losses(golden.make("cam", **{knob: value}), 10)
    assert any(not torch.equal(before[k], after[k]) for k in before)


def test_optimiser_follows_the_card():
    method = golden.make("cam", iterations=100, lr=1e-4, lr_factor=2.0, head_lr_scale=10.0, warmup=0.1)
    (plan,) = method.optimizers()
    rates = sorted({(g["lr"], g["weight_decay"]) for g in plan.optimizer.param_groups})
    assert rates == [(2e-4, 0.0), (2e-4, 0.05), (2e-3, 0.05)]
    heads = {id(p) for g in plan.optimizer.param_groups if g["lr"] == 2e-3 for p in g["params"]}
    assert heads == {id(p) for n, p in method.net.named_parameters() if n.startswith(("classifier", "decoder"))}
    spared = {id(p) for g in plan.optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert id(method.net.encoder.net.position_table) in spared
    assert [plan.factor(s) for s in (0, 10, 100)] == pytest.approx([0.1, 1.0, 0.0])
    assert plan.factor(55) == pytest.approx(0.5)


def test_predictions_have_shapes_ranges_and_absent_classes_zero():
    method = golden.make("cam")
    data = golden.batch(method)
    found = method.predict(data.views["view1"], data.tags_BC, want=frozenset(METHOD.targets))
    assert found.cam_BCHW.shape == found.pseudo_BCHW.shape == (4, 3, 48, 48)
    assert found.segmentation_BKhw.shape == (4, 4, 6, 6)
    for maps in (found.cam_BCHW, found.pseudo_BCHW):
        assert float(maps.min()) >= 0
        assert float(maps.max()) <= 1
        assert float(maps[data.tags_BC == 0].abs().max()) == 0
    everything = method.predict(data.views["view1"], None, want=frozenset({"cam"}))
    assert everything.segmentation_BKhw is None
    assert everything.pseudo_BCHW is None
    present = data.tags_BC > 0
    torch.testing.assert_close(everything.cam_BCHW[present], found.cam_BCHW[present])
    assert method.training, "predict puts the mode back"


def test_prediction_of_one_target_equals_that_of_all():
    method = golden.make("cam", cam_scales=(1.0, 0.5))
    data = golden.batch(method)
    images, tags = data.views["view1"], data.tags_BC
    together = method.predict(images, tags, want=frozenset({"cam", "segmentation"}))
    alone = method.predict(images, tags, want=frozenset({"cam"}))
    torch.testing.assert_close(alone.cam_BCHW, together.cam_BCHW)


@pytest.mark.parametrize("size", [(40, 56), (50, 45), (7, 100)])
def test_images_of_any_size(size):
    method = golden.make("cam")
    images = torch.randn(1, 3, *size)
    found = method.predict(images, torch.ones(1, 3), want=frozenset(METHOD.targets))
    assert found.cam_BCHW.shape == found.pseudo_BCHW.shape == (1, 3, *size)
    assert torch.isfinite(found.segmentation_BKhw).all()


def test_images_without_a_class_and_single_images():
    method = golden.make("cam")
    data = golden.batch(method, images=1)
    empty = Batch(data.ids, data.views, torch.zeros_like(data.tags_BC), None, None)
    out = method.step(empty, Progress(10, 20)).losses
    assert all(torch.isfinite(v) for v in out.values())
    found = method.predict(data.views["view1"], empty.tags_BC, want=frozenset({"cam", "pseudo"}))
    assert float(found.cam_BCHW.abs().max()) == float(found.pseudo_BCHW.abs().max()) == 0


def test_without_a_background_class_pseudo_labels_are_classes_or_ignored():
    method = golden.make("cam", has_background=False)
    data = golden.batch(method)
    assert method.net.decoder.classify.out_channels == 3
    images, tags = data.views["view1"], data.tags_BC
    cam = method.predict(images, tags, want=frozenset({"cam"})).cam_BCHW
    label = method.pseudo_mask(images, cam, tags, None)
    with_background = golden.make("cam").pseudo_mask(images, cam, tags, None)
    confident = (with_background > 0) & (with_background < 255)
    assert confident.any()
    assert torch.equal(label == 255, ~confident)
    assert torch.equal(label[confident], with_background[confident] - 1)
    assert torch.isfinite(losses(method, 10)["seg"])


def test_content_outside_the_image_is_never_labelled():
    method = golden.make("cam")
    data = golden.batch(method)
    content = torch.ones(4, 48, 48, dtype=torch.bool)
    content[:, :, 24:] = False
    cam = torch.rand(4, 3, 48, 48)
    label = method.pseudo_mask(data.views["view1"], cam, data.tags_BC, content)
    assert bool((label[:, :, 24:] == 255).all())
    assert set(threshold_labels(cam, data.tags_BC, low=0.3).unique().tolist()) <= {0, 1, 2, 3}


def test_cam_logits_have_gradient():
    method = golden.make("cam")
    maps = method.cam_logits(golden.batch(method).views["view1"])
    assert maps.shape == (4, 3, 6, 6)
    maps.sum().backward()
    assert float(method.net.encoder.net.project.weight.grad.abs().sum()) > 0


def test_refusals():
    method = golden.make("cam")
    images = torch.zeros(1, 3, 48, 48)
    with pytest.raises(ValueError, match="no teacher weights"):
        method.predict(images, want=frozenset({"cam"}), weights="teacher")
    with pytest.raises(ValueError, match="not boxes"):
        method.predict(images, want=frozenset({"boxes"}))
    with pytest.raises(BadInput, match="deeplabv2 does not work on the tokens"):
        golden.make("cam", decoder="deeplabv2")


@pytest.mark.parametrize(
    ("backbone", "decoder", "side"),
    [
        ("resnet18", "largefov", 3),
        ("resnet18", "deeplabv2", 6),
        ("mobilenetv2_100", "deeplabv3plus", 12),
        ("shapes_cnn", "largefov", 6),
    ],
)
def test_it_learns_on_cnns_whose_statistics_stay(backbone, decoder, side):
    method = golden.make("cam", backbone=backbone, decoder=decoder, seg_start=0.0)
    before = {n: b.clone() for n, b in method.net.encoder.named_buffers() if "running" in n}
    curve = golden.train(method, steps=6)
    assert min(curve["cls"][-2:]) < curve["cls"][0]
    assert set(curve) == {"cls", "seg"}
    assert before
    assert all(torch.equal(b, before[n]) for n, b in method.net.encoder.named_buffers() if n in before)
    found = method.predict(golden.batch(method).views["view1"], want=frozenset({"cam", "segmentation"}))
    assert found.cam_BCHW.shape == (4, 3, 48, 48)
    assert found.segmentation_BKhw.shape == (4, 4, side, side)


def test_a_cnn_has_no_class_token():
    with pytest.raises(BadInput, match="no class token"):
        golden.make("cam", backbone="shapes_cnn", class_token=True)


def test_rules():
    def broken(**knobs):
        return [p.where for p in CamConfig(**knobs).problems()]

    assert broken() == []
    assert broken(pseudo_low=0.7, pseudo_high=0.3) == ["pseudo_low"]
    assert set(broken(w_seg=-0.1, seg_start=1.5, cam_scales=(), lr=0.0)) == {
        "lr",
        "cam_scales",
        "w_seg",
        "seg_start",
    }
    assert set(broken(lr=float("nan"), w_seg=float("inf"))) == {"lr", "w_seg"}


@pytest.mark.parametrize("family", ["voc", "coco", "cityscapes", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
def test_presets_are_legal_and_inside_the_search_space(family, tier):
    chosen = preset(family, tier, "default")
    values = {k: v.default for k, v in CamConfig.knobs().items()} | dict(chosen.knobs)
    assert CamConfig(**values).problems() == []
    assert SPACE.check(CamConfig, values) == []
    assert chosen.batch % chosen.group == 0


def test_card_sizes():
    voc, coco = preset("voc", "paper", "default"), preset("coco", "paper", "default")
    assert (voc.crop, voc.batch, voc.group, voc.iterations, voc.cam_threshold) == (448, 8, 2, 20000, 0.5)
    assert (coco.iterations, coco.cam_threshold, coco.knobs["pseudo_high"]) == (80000, 0.45, 0.65)
    assert coco.knobs["warmup"] * coco.iterations == voc.knobs["warmup"] * voc.iterations == 1500


def test_the_class_token_may_run_through_the_encoder():
    """As in ToCo and UniA; without it as in FSR."""
    plain, with_token = golden.make("cam"), golden.make("cam", class_token=True)
    assert (plain.net.encoder.with_class_token, with_token.net.encoder.with_class_token) == (False, True)
    assert losses(with_token, 10) != losses(plain, 10)
    assert not with_token.net.encoder.net.position_table.requires_grad
