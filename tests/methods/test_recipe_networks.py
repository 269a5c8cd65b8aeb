"""The networks of IRN's and SIPE's recipes as methods: losses, gradients, maps, boundaries."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.api.images import covered
from harness.api.method import Batch, BuildInfo, Progress
from methods.irn.config import IrnConfig
from methods.irn.maps import fused_cam
from methods.irn.method import Irn
from methods.parts.bases.boundary_trainer import BoundaryTrainer, fitted_radius
from methods.parts.bases.prototype_net import SipeNet, fuse, localise
from methods.parts.ops.pixel_pairs import affinity, affinity_loss, pair_labels
from methods.parts.ops.prototypes import consistency_loss, normalise, valid_map
from methods.sipe.config import SipeConfig
from methods.sipe.method import Sipe

INFO = BuildInfo(
    num_classes=3,
    has_background=True,
    crop=64,
    iterations=10,
    group=4,
    tier="smoke",
    variant="default",
    labels="tags",
    backbone="shapes_cnn",
    backbone_weights=None,
    decoder="deeplabv2",
)
TAGS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


def pictures(size: int = 64) -> torch.Tensor:
    """Two images of coloured squares and stripes on a rough ground."""
    images = 0.3 * torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    images[0, 0, size // 4 : size // 2, size // 4 : size // 2] += 2.5
    images[0, 1, size // 2 :, size // 3 : size // 2] -= 2
    images[1, :, ::4, size // 2 :] += 2
    images[1, 2, size // 8 : size // 2, size // 8 : size // 2] += 3
    return images


def batch(size: int = 64, label: torch.Tensor | None = None) -> Batch:
    images = pictures(size)
    content = torch.ones(2, size, size, dtype=torch.bool)
    content[0, : size // 4] = False
    return Batch(("a", "b"), {"view1": images}, TAGS, label, content)


def built(kind, config, **info):
    torch.manual_seed(0)
    return kind(config, dataclasses.replace(INFO, **info))


def coloured(**knobs) -> Sipe:
    """SIPE on the colours themselves, 8 pixels a cell: classes are red, green and blue."""
    method = built(Sipe, SipeConfig(**knobs))
    torch.manual_seed(1)
    net = SipeNet([nn.AvgPool2d(8), *(nn.Identity() for _ in range(4))], (8, 8, 8, 8), 3, levels=method.config.levels)
    with torch.no_grad():
        net.classifier.weight.copy_(torch.eye(3)[:, :, None, None])
        # Sums of neighbouring colours, so that hierarchical features are alike where colours are not.
        for conv in net.side:
            conv.weight.abs_()
    method.net = net
    return method


def test_irn_learns_from_tags_alone():
    method = built(Irn, IrnConfig())
    group = batch()
    losses = method.step(group, Progress(0, 10)).losses
    logits = method.cam_logits(group.views["view1"]).mean((2, 3))
    assert float(losses["cls"].detach()) == pytest.approx(
        float(F.multilabel_soft_margin_loss(logits, TAGS).detach()), rel=1e-6
    )
    plan = method.optimizers()[0]
    assert [g["lr"] for g in plan.optimizer.param_groups] == [0.1, 1.0]
    assert plan.clip_norm is None
    assert plan.factor(9) == plan.factor(12)
    assert sum(len(g["params"]) for g in plan.optimizer.param_groups) == len(
        [p for p in method.parameters() if p.requires_grad]
    )


@pytest.mark.parametrize("size", [(64, 64), (50, 75)])
def test_irn_s_cam_is_that_of_the_operator(size):
    method = built(Irn, IrnConfig())
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    found = method.predict(images, TAGS, want=frozenset({"cam"})).cam_BCHW
    assert found is not None
    for b in range(2):
        pairs = []
        for scale in (1.0, 0.5, 1.5, 2.0):
            here = round(scale * size[0]), round(scale * size[1])
            one = (
                F.interpolate(images[b : b + 1], here, mode="bicubic", antialias=True)
                if scale != 1
                else images[b : b + 1]
            )
            with torch.no_grad():
                pairs.append(method.eval().net.class_maps(torch.cat([one, one.flip(-1)])))
        expected = fused_cam(pairs, TAGS[b], covered(size, method.grain), crop=size)
        assert torch.allclose(found[b][TAGS[b] > 0], expected, atol=1e-5)
        assert not found[b][TAGS[b] == 0].any()
    with pytest.raises(ValueError, match="makes cam"):
        method.predict(images, TAGS, want=frozenset({"segmentation"}))


def test_sipe_s_losses_are_the_card_s():
    method = built(Sipe, SipeConfig())
    group = batch()
    losses = method.step(group, Progress(0, 10)).losses
    valid = valid_map(group.content_BHW, TAGS, (64, 64))
    found = method.net(group.views["view1"], valid)
    assert float(losses["gsc"].detach()) == pytest.approx(
        float(consistency_loss(found.cam, normalise(found.is_cam)).detach()), rel=1e-6
    )
    present = built(Sipe, SipeConfig(gsc_mean="present")).step(group, Progress(0, 10)).losses
    # Two images of four labels, of which 1 + 1 and 1 + 2 are there.
    assert float((present["gsc"] / losses["gsc"]).detach()) == pytest.approx(8 / 5, rel=1e-5)
    late = built(Sipe, SipeConfig(gsc_start=0.5))
    assert set(late.step(group, Progress(4, 10)).losses) == {"cls"}
    assert set(late.step(group, Progress(5, 10)).losses) == {"cls", "gsc"}
    assert method.optimizers()[0].clip_norm == 1.0


def test_sipe_s_scores_and_background_are_its_argmax():
    method = coloured()
    image = pictures(64)[1:, :, :48]
    tags = torch.tensor([[1.0, 0.0, 1.0]])
    prediction = method.predict(image, tags, want=frozenset({"cam"}))
    found, background = prediction.cam_BCHW, prediction.background_BHW
    assert found is not None
    assert background is not None
    maps = []
    for scale in (1.0, 0.5, 1.5, 2.0):
        here = round(scale * 48), round(scale * 64)
        one = F.interpolate(image, here, mode="bicubic", antialias=True) if scale != 1 else image
        maps.append(localise(method.eval().net, torch.cat([one, one.flip(-1)]), tags[0])[1])
    labels, fused = fuse(maps, tags[0], (48, 64))
    score, best = found[0].max(0)
    ours = torch.where(score > background[0], best + 1, 0)
    assert float((ours == labels[fused.argmax(0)]).float().mean()) > 0.999
    assert len(ours.unique()) > 1
    assert not found[0, 1].any()


@pytest.mark.parametrize(
    ("knobs", "changes"),
    [
        ({"seeds_infer": "x4"}, "maps"),
        ({"mask_cam": True}, "maps"),
        ({"present_background": True}, "loss"),
        ({"maps": "cam"}, "maps"),
        ({"background_factor": 1.0}, "maps"),
        ({"factor_at": "map"}, "loss"),
        ({"seeds_train": "H"}, "loss"),
    ],
)
def test_knobs_of_sipe_act_where_they_say(knobs, changes):
    base, other = coloured(), coloured(**knobs)
    group = batch()
    if changes == "loss":
        one, two = (m.step(group, Progress(0, 10)).losses["gsc"] for m in (base, other))
        assert float(one.detach()) != float(two.detach())
        return
    one, two = (m.predict(group.views["view1"], TAGS, want=frozenset({"cam"})).cam_BCHW for m in (base, other))
    assert not torch.equal(one, two)


def test_levels_and_widths_shape_the_network():
    net = built(Sipe, SipeConfig(levels=(3, 4), side_dims=(8, 16, 24, 32))).net
    assert [conv.out_channels for conv in net.side] == [24, 32]
    assert net(pictures(), torch.ones(2, 4, 1, 1)).prototypes.shape == (2, 4, 56)


@pytest.mark.parametrize(("stop", "still"), [("cam", {"side"}), ("is_cam", {"stages", "classifier"})])
def test_gradients_of_the_consistency_can_be_stopped(stop, still):
    method = built(Sipe, SipeConfig(gsc_stop=stop))
    loss = method.step(batch(), Progress(0, 10)).losses["gsc"]
    named = [(n, p) for n, p in method.net.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    assert {n.split(".")[0] for (n, _), g in zip(named, found, strict=True) if g is not None and bool(g.any())} == still


@pytest.mark.parametrize(
    "backbone", ["resnet18", "mobilenetv2_100", "shapes_vit", "shapes_cnn", "vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("kind", [Irn, Sipe])
def test_backbones_make_maps(kind, backbone):
    config = IrnConfig() if kind is Irn else SipeConfig()
    weights = None if backbone.startswith("shapes") else "random"
    method = built(kind, config, backbone=backbone, backbone_weights=weights)
    loss = torch.stack(list(method.step(batch(), Progress(0, 10)).losses.values())).sum()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters() if p.requires_grad)
    cam = method.predict(torch.randn(2, 3, 40, 70), None, want=frozenset({"cam"})).cam_BCHW
    assert cam is not None
    assert cam.shape == (2, 3, 40, 70)
    assert 0 <= float(cam.min()) <= float(cam.max()) <= 1


@pytest.mark.parametrize(
    "backbone", ["resnet18", "mobilenetv2_100", "shapes_vit", "shapes_cnn", "vit_tiny_patch16_224"]
)
def test_boundaries_are_learned_at_stride_4_from_labels(backbone):
    weights = None if backbone.startswith("shapes") else "random"
    method = built(BoundaryTrainer, IrnConfig(displacement=True), backbone=backbone, backbone_weights=weights)
    label = torch.zeros(2, 16, 16, dtype=torch.int64)
    label[:, 4:12, 4:12] = 2
    label[0, :4] = 255
    losses = method.step(batch(label=label), Progress(0, 10)).losses
    assert set(losses) == {"edge", "dp"}
    logits, _ = method.net(batch().views["view1"])
    expected = affinity_loss(affinity(logits[:, 0].sigmoid(), 3.0), *pair_labels(label, 3.0))
    assert float(losses["edge"].detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (losses["edge"] + losses["dp"]).backward()
    assert {n for n, p in method.named_parameters() if p.grad is not None} == {
        n for n, p in method.named_parameters() if n.startswith(("net.edge", "net.displacement"))
    }
    edge = method.boundaries(torch.randn(2, 3, 50, 77))
    assert edge.shape == (2, 13, 20)
    assert 0 <= float(edge.min()) <= float(edge.max()) <= 1
    assert [g["lr"] for g in method.optimizers()[0].optimizer.param_groups] == [0.1, 1.0]


def test_boundaries_learn_a_square():
    """Twenty steps on one picture: pairs across the square's border become unlike."""
    method = built(BoundaryTrainer, IrnConfig(momentum=0.9))
    label = torch.zeros(2, 16, 16, dtype=torch.int64)
    label[:, 4:12, 4:12] = 2
    group = batch(label=label)
    group.views["view1"][:, :, 16:48, 16:48] += 2.0
    plan = method.optimizers()[0]
    values = []
    for step in range(20):
        loss = method.step(group, Progress(step, 20)).losses["edge"]
        plan.optimizer.zero_grad()
        loss.backward()
        plan.optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.7 * values[0]


def test_radii_follow_the_crop():
    """irn.md 7.12."""
    assert [fitted_radius(10, crop) for crop in (512, 320, 160, 96)] == [10, 6, 3, 3]
    assert fitted_radius(7.5, 512) == 7.5
    with pytest.raises(ValueError, match="no pairs"):
        built(BoundaryTrainer, IrnConfig(), crop=16)


def test_a_mirrored_image_has_the_mirrored_boundaries():
    method = built(BoundaryTrainer, IrnConfig(edge_scales=(0.5, 1.0)))
    image = torch.randn(1, 3, 64, 64)
    assert torch.allclose(method.boundaries(image), method.boundaries(image.flip(-1)).flip(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (IrnConfig, {"conf_bg": 0.4}, "conf_bg"),
        (IrnConfig, {"long_min": 2.0}, "long_min"),
        (IrnConfig, {"rw_norm": "image"}, "rw_norm"),
        (SipeConfig, {"levels": ()}, "levels"),
        (SipeConfig, {"seeds_train": "x3"}, "seeds_train"),
        (SipeConfig, {"side_dims": (8, 8)}, "side_dims"),
        (SipeConfig, {"crf_gt_prob": 1.0}, "crf_gt_prob"),
    ],
)
def test_knobs_that_cannot_be_are_named(kind, values, named):
    assert kind().problems() == []
    assert [p.where for p in kind(**values).problems()] == [named]
