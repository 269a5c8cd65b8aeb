"""Groups whose passes run together: each gets the numbers of a step of its own, for one group's launches of the
encoder."""

from __future__ import annotations

import golden_curves as golden
import pytest
import torch

from harness.api.method import Batch, Extents, Progress
from harness.plan.seeding import Draws
from harness.testing.waiting import watch_step
from methods.parts.nets.backbones import build_encoder, encode
from methods.parts.nets.depth import Depth, draw_depth, joined_depth

CASES = [("fsr", "default"), ("fsr", "paper"), ("toco", "default"), ("unia", "default"), ("cam", "default"),
         ("pce", "default"), ("full", "default")]  # fmt: skip
TOTAL = 20


def grouped(method, sizes=(2, 2, 2)):
    """Groups in which images show one class or two."""
    return [golden.batch(method, seed, images=n) for seed, n in enumerate(sizes)]


def outcome(method, groups, at, *, together):
    """Outputs, and gradients of the sum of all losses."""
    method.zero_grad(set_to_none=True)
    progress, draws = Progress(at, TOTAL), [Draws("cpu", 7, i) for i in range(len(groups))]
    if together:
        outputs = method.steps(groups, progress, draws)
    else:
        outputs = []
        for group, own in zip(groups, draws, strict=True):
            with own:
                outputs.append(method.step(group, progress))
    torch.stack([loss for out in outputs for loss in out.losses.values()]).sum().backward()
    return outputs, {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("at", [0, 15])
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_losses_statistics_and_gradients_are_those_of_each_group_alone(name, variant, at):
    method = golden.make(name, variant, drop_path=0.3)
    assert method.takes_groups
    groups = grouped(method)
    apart, expected = outcome(method, groups, at, together=False)
    found, gradients = outcome(method, groups, at, together=True)
    for one, other in zip(apart, found, strict=True):
        assert one.losses.keys() == other.losses.keys()
        for part in ("losses", "stats", "logged"):
            for key, value in getattr(one, part).items():
                torch.testing.assert_close(getattr(other, part)[key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        error, size = (gradients[key] - value).norm(), value.norm()
        assert error <= 1e-4 * size + 1e-6, (key, float(error), float(size))


def test_what_is_drawn_in_a_decoder_is_its_groups_too():
    method = golden.make("cam", decoder="deeplabv3plus", drop_path=0.3)
    method.net.decoder.aspp.dropout.p = 0.5
    groups = grouped(method)
    apart, _ = outcome(method, groups, 15, together=False)
    found, _ = outcome(method, groups, 15, together=True)
    other, _ = outcome(method, groups[::-1], 15, together=True)
    for one, two in zip(apart, found, strict=True):
        torch.testing.assert_close(two.losses["seg"], one.losses["seg"], rtol=1e-5, atol=0)
        for key, value in one.stats.items():
            torch.testing.assert_close(two.stats[key], value, rtol=1e-4, atol=1e-5)
    assert abs(float((other[2].losses["seg"] - apart[0].losses["seg"]).detach())) > 1e-4, "drawn by another group"


def test_statistics_of_a_step_that_broke_off_are_dropped(monkeypatch):
    method = golden.make("cam", decoder="deeplabv3plus")
    groups = grouped(method)
    expected, _ = outcome(method, groups, 15, together=True)

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(method), "segmentation_loss", full)
        with pytest.raises(torch.OutOfMemoryError):
            outcome(method, groups, 15, together=True)
    found, _ = outcome(method, groups, 15, together=True)
    for one, two in zip(expected, found, strict=True):
        assert all(torch.equal(two.stats[key], value) for key, value in one.stats.items())


def test_groups_together_launch_less():
    method = golden.make("cam", drop_path=0.1)
    groups = grouped(method, (2, 2, 2, 2))
    alone = watch_step(method, groups[0], phases=2)
    together = watch_step(method, *groups, phases=2)
    assert not together.waits
    assert together.launches[0.5] <= 0.5 * 4 * alone.launches[0.5], (together.launches, alone.launches)


@pytest.mark.parametrize("words", [{"reuse_cam": False}, {"backbone": "resnet18"}])
def test_what_cannot_be_drawn_beforehand_runs_group_by_group(words):
    name = "fsr" if "reuse_cam" in words else "cam"
    assert not golden.make(name, **words).takes_groups


@pytest.mark.parametrize("name", ["shapes_vit", "vit_tiny_patch16_224"])
def test_depth_that_was_drawn_is_what_passes_draw(name):
    torch.manual_seed(0)
    encoder = build_encoder(name, "random", crop=32, drop=0.6).train()
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(5)
    expected = encode(encoder, images).last_BND
    torch.manual_seed(5)
    drawn = draw_depth(encoder, 4, images)
    after = torch.rand(1)
    depth = joined_depth(encoder, [drawn])
    assert torch.equal(encode(encoder, images, depth_LB=depth).last_BND, expected)
    torch.manual_seed(5)
    encode(encoder, images)
    assert torch.equal(torch.rand(1), after), "as many numbers are drawn"
    assert draw_depth(encoder.eval(), 4, images) is None


def test_depth_of_views_stands_where_their_images_stand():
    encoder = build_encoder("shapes_vit", "random", crop=32, drop=0.5)
    one, two = torch.arange(6.0).expand(6, 6), 10 + torch.arange(4.0).expand(6, 4)
    found = joined_depth(encoder, [Depth(one, 2), Depth(two, 2)])
    assert found[0].tolist() == [0, 1, 2, 10, 11, 3, 4, 5, 12, 13]
    torch.testing.assert_close(found[5], 2 * found[0])  # the last block drops half


def test_a_joined_batch_has_all_images_and_knows_its_shapes():
    method = golden.make("full")
    groups = grouped(method, (2, 3))
    both = Batch.joined(groups)
    assert both.ids == ("0", "1", "0", "1", "2")
    assert torch.equal(both.views["view1"][2:], groups[1].views["view1"])
    assert torch.equal(both.label_BHW[:2], groups[0].label_BHW)
    assert both.extents == Extents.of(both.tags_BC, both.label_BHW)
    assert Batch.joined(groups[:1]) is groups[0]
    assert Batch.joined([g.to("meta") for g in groups]).extents == both.extents


def test_generators_of_a_place_go_on_where_they_were_left():
    with Draws("cpu", 3, 1):
        expected = torch.rand(4)
    one, other = Draws("cpu", 3, 1), Draws("cpu", 3, 2)
    with one:
        first = torch.rand(2)
    with other:
        torch.rand(7)
    with one:
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
