"""`brnf` keeps the promises of `harness.testing` on a CNN and on a ViT; its recipe, ablations and golden curves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import golden_curves as golden
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.method import Batch, Progress
from harness.api.recipe import PerImage, RecipeInfo, Train
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.cli.run_words import BackboneWords
from harness.datasets import open_dataset
from harness.datasets.loading import Source
from harness.errors import BadInput
from harness.testing import MethodTests
from methods.brnf.config import ABLATIONS, METHOD
from methods.brnf.final import added_maps
from methods.brnf.knobs import BrnfConfig
from methods.brnf.recipe import recipe
from methods.parts.ops.map_fusion import over_maximum


@dataclass(frozen=True)
class Seeds:
    """Base seeds (C,12,12) of a picture: the share of each class in each cell, with noise."""

    dataset: Dataset

    def __call__(self, image_id: str) -> NDArray[np.float32]:
        mask_HW = self.dataset.mask(image_id)
        cells = mask_HW[:96, :96].reshape(12, 8, 12, 8)
        shares = [(cells == k + 1).mean((1, 3)) for k in range(self.dataset.num_classes)]
        rng = np.random.default_rng(len(image_id))
        return (np.stack(shares) + 0.1 * rng.random((len(shares), 12, 12))).astype(np.float32)


class BrnfTests(MethodTests):
    method = "cam+brnf"
    stage = "train"
    predicts = frozenset({"cam"})
    folders = frozenset({"seeds"})
    steps = 9
    # The guides of these move: seeds are gated, a density is trained on labels that a young network gives, the bank
    # fills; and the prototypes of a network that has learned nothing agree with its CAM, which is flat.
    may_rise = frozenset({"gsc", "cal", "nce", "gui"})

    def source(self, run, dataset):
        # The reader has the masks that a guarded dataset does not give.
        plain = open_dataset("shapes", options={"n_train": "16", "n_val": "8", "n_test": "8"})
        return Source(run.labels, extra={"seed": Seeds(plain)})

    def run_config(self, knobs=None, steps=None):
        small = {"density_pixels": 1, "region_min": 1, "cam_scales": [1.0]}
        return super().run_config({**small, **(knobs or {})}, steps)


class TestBrnfOnCnn(BrnfTests):
    other = {
        "optimiser": "adamw",
        "side_detach": "x1x2",
        "feature_scale": "unit",
        "mean_init": "orthogonal",
        "f2_prior": "single",
        "seeds_train": "H",
        "flow_start": 0.05,
        "use_start": 0.9,
        "density_pixels": 100_000,
        "density_cutoff": 0.99,
        "flow_dim": 32,
        "flow_pixels": 50,
        "class_pixels": 20,
        "n_reg": 2,
        "region_min": 40,
        "region_tau": 0.99,
        "seed_tau": 0.99,
        "side_dims": [1024, 1024, 2048, 2048],
        "hidden": 1024,
        "card_iterations": 10,
        "power": 0.1,
    }
    together = {
        "warmup": {"optimiser": "adamw"},
        "card_iterations": {"ema": 0.9999},
        "ema": {"card_iterations": 10},
        "learned_weights": {"components": 2},
        "t_d": {"sample_t": 1.0},
        "imagenet_normalisation": {},
        # Only a weak background leaves structural seeds, and with them regions, to classes of so young a CAM.
        "seeds_train": {"background_factor": 0.01},
        "nce_tau": {"background_factor": 0.01},
        "bank_background": {"background_factor": 0.01, "region_tau": 0.05},
        "t_g": {"background_factor": 0.01, "tau_c": 0.05, "margin": 0.0, "gamma": 0.05},
    }


class TestBrnfOnVit(BrnfTests):
    words = {"backbone": BackboneWords(name="shapes_vit")}
    # Its trunk moves at the rate of the preset's CNN, faster than the density of its features follows.
    may_rise = BrnfTests.may_rise | {"f2"}
    # Every knob is turned on the other backbone.
    test_every_knob_acts = None


def seeded(method, n: int) -> Batch:
    """A golden batch with its squares as base seeds, a little wider than they are."""
    group = golden.batch(method, n % 2)
    bright = group.views["view1"] - group.views["view1"].amin((2, 3), keepdim=True)
    seed = torch.nn.functional.avg_pool2d(bright, 8) * group.tags_BC[:, :, None, None]
    return dataclasses.replace(group, extra={"seed": seed})


@pytest.mark.parametrize("variant", METHOD.variants)
def test_golden_curve(variant: str) -> None:
    method = golden.make("cam+brnf", variant, density_pixels=4, region_min=1, clip_norm=0.0, gamma=0.4)
    curve = golden.train(method, make_batch=lambda step: seeded(method, step))
    assert set(curve) == {"cls", "gui", "gsc", "f1", "f2", "cal", "nce"}
    golden.check("cam+brnf", variant, curve)


def test_it_is_no_part_of_any_base_s_network() -> None:
    """A base gives seeds in files: no second network is built beside BRNF's."""
    method = golden.make("cam+brnf")
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"net", "f1", "f2"}


INFO = {"targets": METHOD.targets, "variant": "default", "tier": "smoke", "labels": "tags"}


def base_recipe(name: str):
    spec = registry().spec(name)
    config = spec.config()
    info = RecipeInfo(**{**INFO, "targets": spec.targets})
    return resolve(spec.recipe)(config, info).of_base()


def test_the_base_s_stages_end_where_its_maps_are() -> None:
    found = recipe(BrnfConfig(), RecipeInfo(**INFO, base=base_recipe("cam")))
    names = [s.name for s in found.stages]
    assert names == [
        "base-train", "write-seeds", "train", "write-cams", "refine", "train-affinity", "masks", "train-segmenter",
    ]  # fmt: skip
    train, seeds = found.stage("train"), found.stage("write-seeds")
    assert isinstance(train, Train)
    assert isinstance(seeds, PerImage)
    assert train.extra == {"seed": "seeds"}
    assert seeds.networks == ("base",)
    assert seeds.images == ("train", "scored")
    assert found.scored == {"cam": "cams", "pseudo": "masks", "segmentation": "segmenter"}


def test_what_is_not_read_is_not_written() -> None:
    plain = recipe(BrnfConfig(final="prototype", refine="none"), RecipeInfo(**INFO, base=base_recipe("cam")))
    assert plain.stage("write-seeds").images == ("train",)
    assert plain.stage("write-cams").predicts
    assert plain.stage("write-cams").inputs == ()
    assert "train-affinity" not in [s.name for s in plain.stages]
    assert not recipe(BrnfConfig(), RecipeInfo(**INFO, base=base_recipe("cam"))).stage("write-cams").predicts


def test_a_folder_of_seeds_stands_for_the_base() -> None:
    found = recipe(BrnfConfig(seeds="/somewhere"), RecipeInfo(**INFO, base=base_recipe("cam")))
    assert found.stages[0].name == "train"
    assert found.stages[0].extra == {"seed": "seeds"}
    (given,) = found.given
    assert (given.knob, given.holds, given.images) == ("seeds", "maps", ("train", "scored"))
    alone = recipe(BrnfConfig(seeds="/somewhere", final="prototype"), RecipeInfo(**INFO, base=base_recipe("cam")))
    assert alone.given[0].images == ("train",)
    with pytest.raises(TypeError, match=r"base\+brnf"):
        recipe(BrnfConfig(), RecipeInfo(**INFO))


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("base", set()),
        ("only_gmm", {"f1", "cal"}),
        ("only_fscl", {"f1", "nce"}),
        ("only_bsdnf", {"f2"}),
        ("no_gmm", {"f1", "f2", "nce"}),
        ("no_fscl", {"f1", "f2", "cal"}),
        ("no_bsdnf", {"f1", "cal", "nce"}),
    ],
)
def test_ablations_differ_from_the_base_in_their_terms(name: str, terms: set[str]) -> None:
    method = golden.make("cam+brnf", density_pixels=4, region_min=1, **ABLATIONS[name])
    out = method.step(seeded(method, 0), Progress(15, 20))
    assert set(out.losses) == {"cls", "gui", "gsc"} | terms


def test_every_ablation_is_of_components_alone() -> None:
    assert set(ABLATIONS) == {"base", *(f"{w}_{c}" for w in ("only", "no") for c in ("gmm", "fscl", "bsdnf"))}
    assert set().union(*ABLATIONS.values()) == {"w_cal", "w_nce", "gate"}


@pytest.mark.parametrize("final", ["classifier", "gmm", "seed"])
def test_what_is_added_to_written_maps_is_in_range_and_of_the_tags(final: str) -> None:
    method = golden.make("cam+brnf", final=final, density_pixels=4, region_min=1, clip_norm=0.0)
    golden.train(method, make_batch=lambda step: seeded(method, step))
    method.f1.seen_K.fill_(100)
    method.eval()
    image = seeded(method, 0).views["view1"][:1]
    pair = method.net.maps(torch.cat([image, image.flip(-1)]))
    seed = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = added_maps(method, pair, torch.tensor([[1.0, 0.0, 1.0]]), seed)
    assert found.shape[0] == 4
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert not found[2].any()
    assert found[[1, 3]].any()
    if final == "seed":
        method.f2.known_K.zero_()
        ungated = added_maps(method, pair, torch.tensor([[1.0, 0.0, 1.0]]), seed)
        assert torch.allclose(ungated[1], over_maximum(seed)[0], atol=1e-5)
        with pytest.raises(ValueError, match="needs the base's maps"):
            added_maps(method, pair, torch.tensor([[1.0, 0.0, 1.0]]), None)


@pytest.mark.parametrize("base", ["full", "pce"])
def test_bases_without_cams_are_refused(base: str) -> None:
    with pytest.raises(BadInput, match="no CAMs"):
        registry().choose(f"{base}+brnf")


def test_presets_have_the_card_s_lengths() -> None:
    chosen = registry().choose("cam+brnf")
    voc, coco = (chosen.preset(family, "paper", "default") for family in ("voc", "coco"))
    assert (voc.iterations, voc.crop, voc.batch, voc.backbone) == (6 * 661, 512, 16, "resnet50.tv_in1k")
    assert (coco.iterations, coco.knobs["refine"]) == (51300, "crf")
    for tier in ("smoke", "lab", "paper"):
        for family in ("voc", "coco", "shapes"):
            found = chosen.preset(family, tier, "default")
            assert BrnfConfig(**found.knobs).problems() == []
