"""SIPE's seeds, prototypes, maps and network next to plain restatements. Numbers of sipe.md section 8."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.parts.bases.prototype_net import SipeNet, fuse, localise
from methods.parts.ops.prototypes import (
    background_cam,
    class_prototypes,
    consistency_loss,
    normalise,
    prototype_maps,
    structure_seeds,
    valid_map,
)


def tiny(classes: int = 3) -> SipeNet:
    torch.manual_seed(0)

    def stage(inside, outside, stride):
        return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU())

    stages = [stage(3, 8, 4), stage(8, 8, 1), stage(8, 12, 2), stage(12, 16, 2), stage(16, 24, 1)]
    return SipeNet(stages, (6, 6, 10, 10), classes)


def test_identity_features_of_the_card():
    """sipe.md 8.1."""
    features = torch.eye(2).view(1, 2, 1, 2)
    seeds, iou = structure_seeds(torch.eye(2).view(1, 2, 1, 2), features, torch.ones(1, 2, 1, 1))
    assert torch.allclose(iou[0, :, 0], torch.tensor([[0.5, 0.0], [0.0, 1.0]]), atol=1e-4)
    assert seeds[0, :, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_background_halving_flips_the_winner():
    """sipe.md 8.2."""
    cam = torch.tensor([0.6, 0.4]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    seeds, iou = structure_seeds(cam, torch.ones(1, 3, 1, 2), torch.ones(1, 2, 1, 1))
    assert iou[0, :, 0, 0].tolist() == pytest.approx([0.3, 0.4], abs=1e-4)
    assert iou.softmax(1)[0, :, 0, 0].tolist() == pytest.approx([0.47502, 0.52498], abs=2e-5)
    assert seeds[0, :, 0].tolist() == [[0.0, 0.0], [1.0, 1.0]]
    seeds, iou = structure_seeds(cam, torch.ones(1, 3, 1, 2), torch.ones(1, 2, 1, 1), background_factor=1)
    assert iou[0, :, 0, 0].tolist() == pytest.approx([0.6, 0.4], abs=1e-4)
    assert seeds[0, :, 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_prototype_and_is_cam_of_the_card():
    """sipe.md 8.3."""
    features = torch.tensor([[3.0, 4.0], [4.0, -3.0]]).view(1, 2, 1, 2)
    seeds = torch.zeros(1, 3, 1, 2)
    seeds[0, 0, 0, 0] = 1
    prototypes = class_prototypes(features, seeds)
    assert prototypes[0].tolist() == [[1.5, 2.0], [0.0, 0.0], [0.0, 0.0]]
    found = prototype_maps(features, prototypes)[0, :, 0]
    assert torch.allclose(found, torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), atol=1e-6)


def test_background_map_of_the_card():
    """sipe.md 8.4."""
    maps = torch.tensor([[2.0, -1.0], [1.0, 4.0]]).view(1, 2, 1, 2)
    expected = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.25, 1.0]])
    assert torch.allclose(background_cam(maps)[0, :, 0], expected, atol=1e-5)
    valid = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1)
    masked = background_cam(maps, valid)[0, :, 0]
    assert torch.allclose(masked, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), atol=1e-5)
    own = background_cam(maps, valid, present_only=True)[0, :, 0]
    assert torch.allclose(own, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), atol=1e-5)
    shown = background_cam(maps, valid, present_only=True, masked=False)[0, :, 0]
    assert torch.allclose(shown, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.25, 1.0]]), atol=1e-5)
    with pytest.raises(ValueError, match="valid_BKhw"):
        background_cam(maps, present_only=True)


def test_valid_by_hand():
    content = torch.zeros(1, 4, 4, dtype=torch.bool)
    content[0, :, 2:] = True
    found = valid_map(content, torch.tensor([[0.0, 1.0]]), (2, 2))
    assert found[0].tolist() == [[[0, 1], [0, 1]], [[0, 0], [0, 0]], [[0, 1], [0, 1]]]


def test_shapes_of_the_card():
    """sipe.md 8.7."""
    net, given = tiny(), []
    x = torch.rand(2, 3, 64, 64)
    for stage in net.stages:
        x = stage(x)
        given.append(tuple(x.shape[2:]))
    assert given == [(16, 16), (16, 16), (8, 8), (4, 4), (4, 4)]
    out = net(torch.rand(2, 3, 64, 64), torch.ones(2, 4, 64, 64))
    assert (out.score_BC.shape, out.cam.shape, out.seeds.shape) == ((2, 3), (2, 4, 4, 4), (2, 4, 4, 4))
    assert (out.prototypes.shape, out.is_cam.shape) == ((2, 4, 32), (2, 4, 4, 4))
    names = {name.rpartition(".")[0] for name, _ in net.named_parameters()}
    assert {"classifier", "side.0", "side.3", "stages.0.0", "stages.4.1"} <= names
    assert "classifier.bias" not in dict(net.named_parameters())


def plain_forward(net: SipeNet, images, valid):
    """The head with every product written out, as published."""
    x, given = images, []
    for i, stage in enumerate(net.stages):
        x = stage(x)
        x = x.detach() if i == 2 else x
        given.append(x)
    maps = net.classifier(x)
    size = given[3].shape[2:]
    sides = []
    for conv, feature in zip(net.side, given[1:], strict=True):
        side = conv(feature.detach())
        side = side / (torch.norm(side, dim=1, keepdim=True) + 1e-5)
        sides.append(F.interpolate(side, size, mode="bilinear", align_corners=False))
    hierarchical = torch.cat(sides, 1)
    cam = F.relu(maps)
    cam = cam / (F.adaptive_max_pool2d(cam, 1) + 1e-5)
    cam = torch.cat([1 - cam.max(1, keepdim=True)[0], cam], 1) * valid
    n, k, h, w = cam.shape
    f = given[4].view(n, -1, h * w)
    f = f / (f.norm(dim=1, keepdim=True) + 1e-5)
    similar = F.relu(f.transpose(2, 1) @ f).unsqueeze(1)
    flat = cam.view(n, k, 1, -1)
    inter = (similar * flat).sum(-1)
    iou = (inter / (similar.sum(-1) + flat.sum(-1) - inter)).view(n, k, h, w)
    iou[:, 0] = iou[:, 0] * 0.5
    seeds = torch.zeros(n, k, h, w).scatter_(1, iou.argmax(1, keepdim=True), 1) * valid
    product = hierarchical.unsqueeze(1) * seeds.unsqueeze(2)
    prototypes = F.adaptive_avg_pool2d(product.view(n * k, -1, h, w), 1).view(n, k, -1, 1, 1)
    is_cam = F.relu(torch.cosine_similarity(hierarchical.unsqueeze(1), prototypes, dim=2))
    return maps.mean((2, 3)), cam, seeds, prototypes.flatten(2), is_cam


def test_forward_and_gradients_equal_the_written_out_head():
    net = tiny()
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(3, 3, 64, 64, generator=generator)
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    content = torch.ones(3, 64, 64)
    content[0, :16] = 0
    valid = valid_map(content, tags, (4, 4))
    gradients = []
    for forward in (net, lambda i, v: plain_forward(net, i, v)):
        net.zero_grad()
        outputs = forward(images, valid)
        score, cam, _, _, is_cam = outputs
        loss = F.multilabel_soft_margin_loss(score, tags) + consistency_loss(cam, normalise(is_cam))
        loss.backward()
        gradients.append((outputs, {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}))
    (ours, own), (plain, other) = gradients
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a, b, atol=2e-6)
    assert int(ours[2].sum()) > 0
    assert own.keys() == other.keys()
    assert not [name for name in own if name.startswith(("stages.0", "stages.1", "stages.2"))]
    for name, gradient in own.items():
        assert torch.allclose(gradient, other[name], rtol=1e-4, atol=1e-6), name
        assert float(gradient.abs().sum()) > 0, name


def test_who_learns_from_the_consistency():
    """sipe.md 2.3: through the CAM the classifier and the last two stages, through IS-CAM the side convolutions."""
    net = tiny()
    out = net(torch.randn(2, 3, 64, 64), torch.ones(2, 4, 1, 1))

    def learners(loss):
        found = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
        names = [n for (n, _), g in zip(net.named_parameters(), found, strict=True) if g is not None and bool(g.any())]
        return {name.rpartition(".")[0].split(".")[0] for name in names}

    assert learners(consistency_loss(out.cam, out.is_cam.detach())) == {"stages", "classifier"}
    assert learners(consistency_loss(out.cam.detach(), normalise(out.is_cam))) == {"side"}
    assert not out.seeds.requires_grad


def test_nothing_to_see_gives_finite_numbers():
    seeds, iou = structure_seeds(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2), torch.ones(1, 3, 1, 1))
    assert not iou.any()
    assert seeds[0, 0].tolist() == [[1, 1], [1, 1]]
    assert not class_prototypes(torch.rand(1, 4, 2, 2), torch.zeros(1, 3, 2, 2)).any()
    maps = prototype_maps(torch.zeros(1, 4, 2, 2, requires_grad=True), torch.zeros(1, 3, 4))
    maps.sum().backward()
    assert not maps.any()
    assert background_cam(torch.full((1, 2, 3, 3), -1.0))[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    out = tiny()(torch.randn(1, 3, 16, 16), torch.zeros(1, 4, 1, 1))
    assert all(bool(x.isfinite().all()) for x in out)
    assert not out.seeds.any()


def test_seeds_of_another_size_are_resized():
    seeds = torch.zeros(1, 2, 1, 2)
    seeds[0, 1, 0, 1] = 1
    features = torch.arange(16.0).view(1, 2, 2, 4)
    found = class_prototypes(features, seeds)
    assert found[0].tolist() == [[0.0, 0.0], [(2 + 3 + 6 + 7) / 8, (10 + 11 + 14 + 15) / 8]]
    with pytest.raises(ValueError, match="cells"):
        structure_seeds(torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 3), torch.ones(1, 2, 1, 1))


def test_localise_sums_the_mirror_and_lets_absent_classes_compete():
    net = tiny()
    image = torch.randn(3, 64, 48, generator=torch.Generator().manual_seed(5))
    pair = torch.stack([image, image.flip(-1)])
    tags = torch.tensor([0.0, 1.0, 0.0])
    cam, is_cam = localise(net, pair, tags)
    assert cam.shape == is_cam.shape == (4, 4, 3)
    with torch.no_grad():
        maps, deep, hierarchical = (x[:1] + x[1:].flip(-1) for x in net.maps(pair))
        valid = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 4, 1, 1)
        plain = background_cam(maps)
        assert torch.equal(cam, plain[0])
        seeds, _ = structure_seeds(plain, hierarchical, valid)
        expected = prototype_maps(hierarchical, class_prototypes(hierarchical, seeds))[0]
    assert torch.allclose(is_cam, expected, atol=1e-6)
    assert not is_cam[[1, 3]].any()
    assert bool((cam[[1, 3]] > 0).any()), "absent classes stay in the CAM"
    masked, _ = localise(net, pair, tags, mask_cam=True)
    assert not masked[[1, 3]].any()
    own, _ = localise(net, pair, tags, present_only=True)
    assert torch.allclose(own[0], 1 - cam[2], atol=1e-6)
    assert torch.equal(own[1:], cam[1:])
    with torch.no_grad():
        seeds, _ = structure_seeds(plain, deep, valid)
        expected = prototype_maps(hierarchical, class_prototypes(hierarchical, seeds))[0]
    assert torch.allclose(localise(net, pair, tags, seed_features="x4")[1], expected, atol=1e-6)


def test_fusion_by_hand():
    one = torch.tensor([[[1.0, 0.0]], [[9.0, 9.0]], [[0.0, 1.0]]])
    two = torch.tensor([[[1.0]], [[9.0]], [[0.5]]])
    labels, maps = fuse([one, two], torch.tensor([0.0, 1.0]), (1, 2))
    assert labels.tolist() == [0, 2]
    assert torch.allclose(maps, torch.tensor([[[1.0, 0.5]], [[1 / 3, 1.0]]]), atol=2e-5)
    labels, maps = fuse([one], torch.tensor([0.0, 0.0]), (2, 4))
    assert (labels.tolist(), maps.shape) == ([0], (1, 2, 4))


def test_a_network_needs_five_stages_and_keeps_its_statistics():
    with pytest.raises(ValueError, match="5 are needed"):
        SipeNet([nn.Identity()] * 4, (1, 1, 1, 1), 2)
    net = tiny().train()
    before = {name: b.clone() for name, b in net.named_buffers()}
    net(torch.randn(2, 3, 32, 32), torch.ones(2, 4, 1, 1))
    assert all(torch.equal(b, before[name]) for name, b in net.named_buffers())
