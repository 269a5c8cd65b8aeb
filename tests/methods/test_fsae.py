"""FSAE on its bases: conformance, golden curve, and the limits in which it is its base (fsae.md 8.7, 8.8)."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import numpy as np
import pytest
import torch
from torch import nn

from harness.api.dataset import Sample
from harness.api.method import Batch, BuildInfo, Method, Progress, StepOutput
from harness.api.registry import registry
from harness.testing import MethodTests
from methods.fsae.config import FsaeConfig
from methods.fsae.labels import teacher_labels
from methods.fsae.losses import consistency_loss
from methods.fsae.method import Fsae
from methods.fsae.views import STRONG, StrongViews, pixels_of
from methods.parts.knobs import ViewKnobs
from methods.parts.views.crop_views import CropViews

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = FsaeConfig(
    n_strong_augs=0, blur=False, jitter_brightness=0, jitter_contrast=0, jitter_saturation=0, jitter_hue=0
)


class TestCamFsae(MethodTests):
    method = "cam+fsae"
    # Their targets move: pseudo labels of CAMs that still form, and a teacher that selects more and more pixels.
    may_rise = frozenset({"seg", "con"})
    other = {
        "absent": "zero",
        "over": "selected",
        "label_filter": "foreground",
        "bdry_cutoff": 0.3,
        "ema": 0.99999,
        "teacher_mode": "train",
    }
    together = {"card_iterations": {"ema": 0.99999}}

    def run_config(self, knobs=None, steps=None):
        """With stochastic depth in the base, without which a teacher in train mode is the same as in eval mode."""
        run = super().run_config(knobs, steps)
        return dataclasses.replace(run, base_knobs={**run.base_knobs, "drop_path": 0.5})

    def test_without_its_consistency_it_is_its_base(self, tmp_path):
        """Ablation `base`: a whole run ends with the bytes of the base alone."""
        beside = super().run_config(dict(registry().spec("fsae").ablations["base"]))
        alone = super().run_config()
        alone = dataclasses.replace(alone, method="cam", knobs=alone.base_knobs, base_knobs=None)
        trained, losses = self.train(beside, tmp_path / "beside")
        expected, curve = self.train(alone, tmp_path / "alone")
        assert losses.steps == curve.steps
        assert all(torch.equal(trained.base.state_dict()[n], v) for n, v in expected.state_dict().items())


class TestTocoFsae(MethodTests):
    method = "toco+fsae"
    steps = 5
    may_rise = frozenset({"ptc", "ctc", "seg", "reg", "con"})
    # Every knob is turned on the other base.
    test_every_knob_acts = None


def test_golden_curve():
    method = golden.make("cam+fsae", con_start=0.2)
    golden.check("cam+fsae", "default", golden.train(method))


def sample() -> Sample:
    image = np.random.default_rng(1).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    return Sample("a", image, np.ones(3, np.float32), None)


def views_of(method: FsaeConfig, base: CropViews, seed: int):
    return StrongViews(base, method, MEAN, STD)(sample(), np.random.default_rng(seed))


def crops(**knobs) -> CropViews:
    return CropViews(names=("view1", "view2"), crop=48, knobs=ViewKnobs(**knobs), mean=MEAN, std=STD)


def test_without_augmentation_the_strong_view_is_the_weak_one():
    """fsae.md 8.8: bit for bit, also with the base's own jitter on."""
    for seed in range(5):
        views = views_of(PLAIN, crops(jitter_probability=1.0), seed).views
        assert list(views) == ["view1", "view2", STRONG]
        assert torch.equal(views[STRONG], views["view1"])


def test_the_base_sees_what_it_sees_alone():
    alone = crops()(sample(), np.random.default_rng(7))
    beside = views_of(FsaeConfig(), crops(), 7)
    for name, view in alone.views.items():
        assert torch.equal(view, beside.views[name])
    assert not torch.equal(beside.views[STRONG], beside.views["view1"])


def test_pixels_come_back_exactly():
    levels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(3, 16, 16)
    normalised = (levels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert np.array_equal(pixels_of(normalised, MEAN, STD), levels.permute(1, 2, 0).numpy())


def step(method: Method, fraction: float = 0.5) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses and gradients of one step."""
    torch.manual_seed(0)
    out = method.step(golden.batch(method), Progress(int(fraction * 20), 20))
    torch.stack(list(out.losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return {name: loss.detach() for name, loss in out.losses.items()}, gradients


@pytest.mark.parametrize("knobs", [{"p_cutoff": 1.01, "bdry_cutoff": 1.01}, {"w_con": 0.0}, {"con_start": 0.6}])
def test_it_is_its_base_where_nothing_is_selected_weighted_or_started(knobs):
    """fsae.md 8.7: L = L_base exactly, and no further gradient."""
    alone, expected = step(golden.make("cam", drop_path=0.0))
    losses, gradients = step(golden.make("cam+fsae", base_knobs={"drop_path": 0.0}, **knobs))
    assert losses.pop("con", torch.zeros(())).item() == 0.0
    assert losses == alone
    assert {f"base.{name}" for name in expected} == {n for n, g in gradients.items() if bool(g.any())} | {
        f"base.{name}" for name, g in expected.items() if not bool(g.any())
    }
    for name, gradient in expected.items():
        assert torch.equal(gradients[f"base.{name}"], gradient), name


def test_the_loss_is_that_of_its_operators_and_reaches_the_student_only():
    method = golden.make("cam+fsae", w_con=2.0, base_knobs={"drop_path": 0.0})
    group = golden.batch(method)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.1)
    labels = method.teacher_labels(group.views["view1"], group.tags_BC)
    assert bool(labels.mask.any())
    logits = method.logits(method.base, group.views[STRONG], group.tags_BC)
    expected = consistency_loss(logits, labels.label, labels.mask_exp, group.tags_BC, absent="exclude")
    shares = method.step(group, Progress(10, 20)).logged
    assert shares["mask_exp"].item() == pytest.approx(labels.mask_exp.float().mean().item())
    assert sum(value.item() for name, value in shares.items() if name.startswith("conf_to_")) == pytest.approx(1.0)
    assert shares["conf_to_0.99"] + shares["conf_to_1"] == pytest.approx(shares["mask"].item())
    losses, gradients = step(method)
    assert losses["con"].item() == pytest.approx(2.0 * expected.item(), rel=1e-5)
    assert all(name.startswith("base.") for name in gradients)
    without = step(golden.make("cam+fsae", w_con=0.0, base_knobs={"drop_path": 0.0}))[1]
    changed = {name for name, g in gradients.items() if not torch.equal(g, without[name])}
    assert "base.net.classifier_top.weight" in changed
    assert not any(name.startswith("base.net.decoder") for name in changed), "the decoder makes no CAM"


def test_foreground_labels_alone():
    method = golden.make("cam+fsae", label_filter="foreground", base_knobs={"drop_path": 0.0})
    group = golden.batch(method)
    labels = method.teacher_labels(group.views["view1"], group.tags_BC)
    logits = method.logits(method.base, group.views[STRONG], group.tags_BC)
    kept = labels.mask_exp & (labels.label > 0)
    assert 0 < int(kept.sum()) < int(labels.mask_exp.sum())
    expected = consistency_loss(logits, labels.label, kept, group.tags_BC, absent="exclude")
    torch.testing.assert_close(method.consistency(group.views[STRONG], labels, group.tags_BC), expected)


def test_teacher_is_an_average_of_the_base_and_predicts_as_such():
    method = golden.make("cam+fsae", ema=0.9, card_iterations=20)
    images = golden.batch(method).views["view1"]
    want = frozenset({"cam", "segmentation"})
    before = {name: p.clone() for name, p in method.teacher.named_parameters()}
    golden.train(method, steps=1)
    for name, student in method.base.named_parameters():
        torch.testing.assert_close(dict(method.teacher.named_parameters())[name], 0.9 * before[name] + 0.1 * student)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    student, teacher = (method.predict(images, want=want, weights=w) for w in ("student", "teacher"))
    assert not torch.equal(student.segmentation_BKhw, teacher.segmentation_BKhw)
    assert torch.equal(student.cam_BCHW, method.base.predict(images, want=want).cam_BCHW)
    with pytest.raises(ValueError, match="no median weights"):
        method.predict(images, want=want, weights="median")
    assert method.describe()["ema"] == 0.9


def test_ema_is_fitted_to_the_run():
    """design rule (b), fsae.md 3: .999 over 40000 steps."""
    assert golden.make("cam+fsae", iterations=40000).config.ema == 0.999
    assert golden.make("cam+fsae", iterations=4000).config.ema == pytest.approx(0.99)
    assert golden.make("cam+fsae", iterations=20).config.ema == pytest.approx(0.9)


class Literal(Method):
    """A base with a background channel at 0."""

    background_tags = True
    stats_concat = frozenset({"seen"})

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Conv2d(3, 4, 1)

    def transform(self):
        return crops()

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        return StepOutput({"cls": self.top.weight.square().sum()}, {"seen": torch.ones(())})

    def optimizers(self):
        return []

    def cam_logits(self, images_B3HW):
        return self.top(images_B3HW)

    def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"):
        raise NotImplementedError

    def normalisation(self):
        return MEAN, STD


def built(config: FsaeConfig, base) -> Fsae:
    info = BuildInfo(
        num_classes=3, has_background=True, crop=48, iterations=20, group=2, tier="smoke", variant="default",
        labels="tags", backbone="none", backbone_weights=None, decoder="none", base=base,
    )  # fmt: skip
    return Fsae(config, info)


def test_a_base_with_a_background_channel_is_read_literally():
    """fsae.md 2.3 instead of 2.6."""
    torch.manual_seed(0)
    config = FsaeConfig(absent="zero", p_cutoff=0.6, bdry_cutoff=0.4)
    method = built(config, Literal())
    assert method.background_tags
    assert method.stats_concat == {"seen"}
    images = 3 * torch.randn(2, 3, 6, 6)
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    expected = teacher_labels(method.base.top(images), tags, absent="zero", p_cutoff=0.6, bdry_cutoff=0.4)
    found = method.teacher_labels(images, tags)
    assert torch.equal(found.mask_exp, expected.mask_exp)
    assert torch.equal(found.label, expected.label)
    assert 0 < int(found.mask.sum()) < found.mask.numel()
    group = Batch(("a", "b"), {"any": images, STRONG: images}, tags, None, None)
    out = method.step(group, Progress(0, 20))
    assert set(out.losses) == {"cls", "con"}
    assert set(out.stats) == {"seen"}
    assert isinstance(method.transform(), StrongViews)
    assert method.transform().base.names == ("view1", "view2")
    assert isinstance(built(dataclasses.replace(config, w_con=0.0), Literal()).transform(), CropViews)


def test_it_needs_a_base():
    with pytest.raises(TypeError, match=r"base\+fsae"):
        built(FsaeConfig(), None)


@pytest.mark.parametrize(
    ("knobs", "where"),
    [
        ({"bdry_size": 2}, "bdry_size"),
        ({"bdry_size": 0}, "bdry_size"),
        ({"bdry_cutoff": 0.96}, "bdry_cutoff"),
        ({"absent": "none"}, "absent"),
        ({"over": "some"}, "over"),
        ({"label_filter": "bg"}, "label_filter"),
        ({"teacher_mode": "both"}, "teacher_mode"),
        ({"temperature": 0.0}, "temperature"),
        ({"ema": 1.5}, "ema"),
        ({"w_con": float("nan")}, "w_con"),
    ],
)
def test_rules_between_knobs(knobs, where):
    assert [p.where for p in FsaeConfig(**knobs).problems()] == [where]
    assert FsaeConfig().problems() == []
