"""What `agmm`, `ema` and `gatedcrf` share: views, optimiser, network; and that on small sizes they are `pce` but for
their losses."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import numpy as np
import pytest
import torch

from harness.api.dataset import Sample
from harness.api.method import Progress
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.api.vocabulary import IGNORE
from harness.cli.run_words import BackboneWords
from harness.datasets import open_dataset
from harness.datasets.loading import Loader
from harness.errors import BadInput
from harness.plan.build import build_method
from harness.plan.config import RunConfig
from harness.testing.running import MethodRunner
from methods.parts.bases.sparse_knobs import SparseKnobs, sparse_preset
from methods.parts.nets.deeplab import GroupBatchNorm
from methods.parts.views.sparse_views import TAGS, SparseViews, labels_held, long_side_crop

METHODS = ("agmm", "ema", "gatedcrf")
BASE = {"agmm": {"w_gmm": 0.0, "w_sep": 0.0, "w_cls": 0.0}, "gatedcrf": {"w_crf": 0.0}}


def runner(name: str, **words: object) -> MethodRunner:
    made = type("Runner", (MethodRunner,), {"method": name, "labels": "scribbles", "words": words})
    return made()  # type: ignore[no-any-return]


def run_of(name: str, **words: object) -> RunConfig:
    return runner(name, **words).run_config(BASE.get(name))


@pytest.mark.parametrize("name", BASE)
def test_without_its_losses_a_method_is_pce(name, tmp_path):
    """Same views, network, optimiser and schedule: every loss and every weight of six steps, bit by bit."""
    made = {}
    for one in (name, "pce"):
        tests = runner(one, decoder="deeplabv3plus")
        method, trained = tests.train(run_of(one, decoder="deeplabv3plus"), tmp_path / one)
        made[one] = method.net.state_dict(), [v for _, term, v in trained.steps if term == "seg"]
    assert made[name][1] == made["pce"][1]
    assert len(made[name][1]) == 6
    assert made[name][0].keys() == made["pce"][0].keys()
    assert all(torch.equal(value, made["pce"][0][key]) for key, value in made[name][0].items())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("variant", ["default", "released"])
@pytest.mark.parametrize("family", ["voc", "coco", "cityscapes", "acdc", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
def test_presets_are_legal_and_inside_the_search_space(name, variant, family, tier):
    spec = registry().spec(name)
    chosen = resolve(spec.preset)(family, tier, variant)
    values = {k: v.default for k, v in spec.config.knobs().items()} | dict(chosen.knobs)
    assert spec.config(**values).problems() == []
    space = resolve(registry().space_target(name))
    assert space.check(spec.config, values) == []
    assert chosen.decoder == "deeplabv3plus"
    assert chosen.batch % chosen.group == 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("ablation", ["base", *(f"agmm.{n}" for n in ("sum", "var_learned", "detach_p"))])
def test_ablations_set_knobs_that_there_are(name, ablation):
    spec = registry().spec(name)
    for overrides in spec.ablations.values():
        assert spec.config(**overrides).problems() == []
    if ablation.startswith("agmm"):
        assert ablation.removeprefix("agmm.") in registry().spec("agmm").ablations
    else:
        assert ablation in spec.ablations


def test_card_sizes():
    """agmm.md 3: 80 epochs of 661 steps; 240 of 247 on three GPUs; the yaml's rates and dilations."""
    voc, city = sparse_preset("voc", "paper"), sparse_preset("cityscapes", "paper")
    assert (voc.backbone, voc.crop, voc.batch, voc.iterations) == ("resnet101s.gluon_in1k", 321, 16, 52880)
    assert (city.backbone, city.crop, city.batch, city.iterations) == ("resnet50s.gluon_in1k", 721, 12, 59280)
    assert voc.inference.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    assert voc.inference.flip == "mean"
    assert city.inference.size == "tiles"
    assert city.knobs["multi_grid"] is True
    assert SparseKnobs().lr_backbone * 5 == city.knobs["lr_backbone"]


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_long_side_is_drawn_and_padding_lies_right_and_below():
    """A 40x20 image at factor 1/2 on a crop of 32: 20x10 real pixels in the upper left corner, 255 and False beside."""
    image = np.full((20, 40, 3), 200, np.uint8)
    label = np.full((20, 40), 3, np.uint8)
    crop = long_side_crop(image, label, draws(), 32, 0.5, 0.5)
    assert crop.image_HW3.shape == (32, 32, 3)
    assert crop.box == (0, 0, 10, 20)
    assert crop.content_HW[:10, :20].all()
    assert crop.content_HW.sum() == 200
    assert (crop.label_HW[crop.content_HW] == 3).all()
    assert (crop.label_HW[~crop.content_HW] == IGNORE).all()
    assert not crop.image_HW3[~crop.content_HW].any()
    assert (crop.image_HW3[crop.content_HW] == 200).all()


def test_long_sides_are_whole_numbers_of_the_interval_and_the_other_side_is_rounded():
    """L = 8, [.5, 2]: 4 to 16; the short side of 5 becomes floor(5 n/8 + .5)."""
    image = np.zeros((5, 8, 3), np.uint8)
    rng = draws()
    seen = {long_side_crop(image, None, rng, 64, 0.5, 2.0).box[2:] for _ in range(300)}
    assert seen == {(int(5 * n / 8 + 0.5), n) for n in range(4, 17)}
    with pytest.raises(ValueError, match="0 < low <= high"):
        long_side_crop(image, None, rng, 64, 2.0, 0.5)


def test_windows_of_larger_images_lie_anywhere_inside():
    image = np.arange(64, dtype=np.uint8).reshape(1, 64, 1).repeat(3, 2).repeat(64, 0)
    rng = draws()
    lefts = {int(long_side_crop(image, None, rng, 32, 1.0, 1.0).image_HW3[0, 0, 0]) for _ in range(500)}
    assert lefts == set(range(33))


def views_of(**knobs):
    config = SparseKnobs(**{"keep_labels": True, **knobs})
    return SparseViews(("view1", "plain"), 32, config, (0.5,) * 3, (0.5,) * 3, config.keep_labels, 4)


@pytest.mark.parametrize("geometry", ["long_side", "area"])
def test_views_share_the_crop_and_the_first_is_coloured(geometry):
    rng = np.random.default_rng(1)
    label = np.full((24, 40), IGNORE, np.uint8)
    label[3, 3], label[20, 30], label[10, 10] = 2, 0, 200
    sample = Sample("a", rng.integers(0, 255, (24, 40, 3), dtype=np.uint8), np.zeros(3, np.float32), label)
    plain = views_of(geometry=geometry, strong_colour=False)(sample, draws(3))
    strong = views_of(geometry=geometry, jitter_probability=1.0, shift_probability=1.0)(sample, draws(3))
    assert torch.equal(plain.views["view1"], plain.views["plain"])
    assert torch.equal(plain.views["plain"], strong.views["plain"])
    assert not torch.equal(strong.views["view1"], strong.views["plain"])
    assert torch.equal(plain.label_HW, strong.label_HW)
    assert strong.extra[TAGS].tolist() == [1, 0, 1, 0], "of the whole image, 200 is no label"
    assert (plain.content_HW is None) == (geometry == "area")
    if plain.content_HW is not None:
        assert (plain.label_HW[~plain.content_HW] == IGNORE).all()


def test_labels_held_by_hand():
    assert labels_held(np.array([[0, 2], [255, 7]], np.uint8), 3).tolist() == [1, 0, 1]
    assert labels_held(None, 2).tolist() == [0, 0]


@pytest.mark.parametrize(("keep", "least"), [(True, 0.9), (False, 0.0)])
def test_one_pixel_clicks_survive_a_view_of_half_the_size(keep, least):
    dataset = open_dataset("shapes", options={"n_train": "8", "n_val": "1", "n_test": "1"})
    config = SparseKnobs(scale_min=0.5, scale_max=0.5, keep_labels=keep)
    views = SparseViews(("view1",), 96, config, (0.5,) * 3, (0.5,) * 3, keep)
    loader = Loader(dataset, dataset.ids("train"), views, "clicks100", seed=0, batch=8, group=8, total_steps=1)
    ((batch,),) = loader
    share = float((batch.label_BHW != IGNORE).float().sum()) / 800
    assert share >= least
    assert keep or share == pytest.approx(0.25, abs=0.06)


def test_optimisers_by_hand():
    """SGD: two groups, decay on everything, poly; AdamW: the groups of `pce`."""
    method = golden.make("agmm", decoder="deeplabv3plus", optimizer="sgd", schedule="poly", warmup=0.0)
    (plan,) = method.optimizers()
    assert isinstance(plan.optimizer, torch.optim.SGD)
    slow, fast = plan.optimizer.param_groups
    assert fast["lr"] == pytest.approx(10 * slow["lr"])
    assert (slow["weight_decay"], slow["momentum"]) == (1e-4, 0.9)
    assert {id(p) for p in slow["params"]} == {id(p) for p in method.net.encoder.parameters() if p.requires_grad}
    total = method.info.iterations
    assert [plan.factor(s) for s in (0, total // 2)] == pytest.approx([1.0, 0.5**0.9])


def test_batch_norm_that_learns_moves_in_update_only():
    method = golden.make("agmm", decoder="deeplabv3plus", train_norms=True)
    norm = next(m for m in method.net.encoder.modules() if isinstance(m, GroupBatchNorm))
    assert norm.training
    before = norm.running_mean.clone()
    data = golden.batch(method)
    out = method.step(data, Progress(0, 20))
    assert torch.equal(norm.running_mean, before)
    method.update(out.stats, Progress(0, 20))
    assert not torch.equal(norm.running_mean, before)
    assert not norm.eval().training
    frozen = golden.make("agmm", decoder="deeplabv3plus", train_norms=False)
    assert not any(isinstance(m, GroupBatchNorm) for m in frozen.net.encoder.modules())


@pytest.mark.parametrize("name", METHODS)
def test_other_decoders_and_missing_labels_are_refused(name):
    with pytest.raises(BadInput, match="decoder: largefov has no stride-4 map"):
        golden.make(name)
    method = golden.make(name, decoder="deeplabv3plus")
    data = dataclasses.replace(golden.batch(method), label_BHW=None)
    with pytest.raises(ValueError, match="needs labels=points"):
        method.step(data, Progress(0, 20))


@pytest.mark.parametrize("backbone", ["shapes_cnn", "test_vit", "test_resnet"])
@pytest.mark.parametrize("name", METHODS)
def test_any_backbone_serves(name, backbone):
    """A CNN, a ViT without a stride-4 map, and a network of stages, from random weights: one step, finite."""
    tests = runner(name, backbone=BackboneWords(name=backbone))
    run = tests.run_config()
    method = build_method(run, tests.dataset(), "random").train()
    group = tests.group(run, tests.dataset(), method)
    out = method.step(group, Progress(5, 6))
    torch.stack(list(out.losses.values())).sum().backward()
    assert all(torch.isfinite(v) for v in out.losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
