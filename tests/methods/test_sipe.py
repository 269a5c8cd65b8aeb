"""`sipe`: registration, presets, stages, ablations, golden curves; its operators are in test_sipe_operators.py."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import pytest
import torch
from torch import nn

from harness.api.images import BACKGROUND
from harness.api.method import Batch, Progress
from harness.api.recipe import PerImage, RecipeInfo, Train
from harness.api.registry import registry
from harness.cli.run_words import BackboneWords
from harness.engine.inference.predictions import score_maps
from harness.errors import BadInput
from harness.plan.knobs import typed_knobs
from harness.testing import MethodTests, build
from methods.sipe.config import ABLATIONS, METHOD, SipeConfig
from methods.sipe.presets import preset
from methods.sipe.recipe import recipe
from methods.sipe.tables import PAPER
from reports.papers.claims import load_claims
from search_spaces.sipe import SPACE

INFO = RecipeInfo(targets=METHOD.targets, variant="default", tier="smoke", labels="tags")
SMALL = {"lr": 0.05, "cam_scales": (1.0,), "side_dims": (8, 8, 16, 16)}


class TestSipe(MethodTests):
    method = "sipe"
    # The prototypes of a network that just started fit its maps better than later on.
    may_rise = frozenset({"gsc"})
    other = {
        "clip_norm": 0.01, "maps": "cam", "factor_at": "map", "seeds_train": "H", "seeds_infer": "x4",
        "gsc_stop": "cam", "gsc_mean": "present", "levels": [2, 3, 4], "side_dims": [8, 16, 24, 32],
    }  # fmt: skip


class TestSipeOnViT(TestSipe):
    words = {"backbone": BackboneWords("shapes_vit")}


@pytest.mark.parametrize("variant", ["default", "released"])
def test_golden_curve(variant):
    curve = golden.train(golden.make("sipe", variant, **SMALL))
    golden.check("sipe", variant, curve)
    assert list(curve) == ["cls", "gsc"]
    assert curve["cls"][-1] < curve["cls"][0]


def test_its_steps_are_those_of_the_card_s_logs():
    """sipe.md 3: T = 3,305 and 25,650; momentum field 1e-4; lr .1 and 1.0; .0863 at step 500; clip at 1."""
    voc, coco = preset("voc", "paper", "default"), preset("coco", "paper", "default")
    assert (voc.iterations, coco.iterations) == (3305, 25650)
    assert (voc.crop, voc.batch, voc.group, voc.backbone) == (512, 16, 16, "resnet50.tv_in1k")
    assert voc.networks["segmenter"]["backbone"] == "resnet101.tv_in1k"
    assert voc.networks["affinity"] == {"batch": 32, "group": 32, "iterations": 990}
    assert (dict(voc.knobs), dict(coco.knobs)) == ({}, {"refine": "crf"})
    method = build(
        "sipe", "voc", stages(), crop=64, classes=3, variant="default", iterations=3305, group=2, cam_scales=(1.0,)
    )
    plan = method.optimizers()[0]
    assert [g["lr"] for g in plan.optimizer.param_groups] == [0.1, 1.0]
    assert {g["momentum"] for g in plan.optimizer.param_groups} == {1e-4}
    assert {g["weight_decay"] for g in plan.optimizer.param_groups} == {1e-4}
    assert 0.1 * plan.factor(500) == pytest.approx(0.0863, abs=5e-5)
    assert plan.clip_norm == 1.0


def stages() -> nn.ModuleList:
    def stage(inside: int, outside: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU())

    torch.manual_seed(0)
    return nn.ModuleList([stage(3, 8, 4), stage(8, 8, 1), stage(8, 12, 2), stage(12, 16, 2), stage(16, 24, 1)])


def test_a_step_on_a_given_network():
    method = build("sipe", "voc", stages(), crop=64, classes=3, variant="default", iterations=10, group=2)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tags = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    losses = method.step(Batch(("a", "b"), {"view1": images}, tags, None, None), Progress(0, 10)).losses
    assert float(losses["cls"].detach()) == pytest.approx(0.693, abs=0.05)
    assert 0 < float(losses["gsc"].detach()) < 1


def names(**knobs) -> list[str]:
    return [s.name for s in recipe(SipeConfig(**knobs), INFO).stages]


def test_stages_follow_refine():
    assert names() == ["train", "write-cams", "refine", "train-affinity", "masks", "train-segmenter"]
    assert names(refine="crf") == names(refine="none") == ["train", "write-cams", "masks", "train-segmenter"]
    made = recipe(SipeConfig(), INFO)
    assert dict(made.scored) == {"cam": "cams", "pseudo": "masks", "segmentation": "segmenter"}
    segmenter = made.stage("train-segmenter")
    assert isinstance(segmenter, Train)
    assert segmenter.label == "masks"
    labels = made.stage("refine")
    assert isinstance(labels, PerImage)
    assert labels.images == ("train",)
    assert made.until("write-cams").targets == ("cam",)
    assert made.until("masks").targets == ("cam", "pseudo")


def test_every_knob_but_the_normalisation_names_its_stages():
    everywhere = [name for name, field in SipeConfig.knobs().items() if not field.metadata["stages"]]
    assert everywhere == ["imagenet_normalisation"]


def test_a_walk_knob_leaves_the_first_stages_alone():
    for name in ("rw_power", "rw_beta", "rw_steps", "label_factor", "seg_lr"):
        read = SipeConfig.knobs()[name].metadata["stages"]
        assert not {"train", "write-cams"} & set(read), name
    assert set(SipeConfig.knobs()["background_factor"].metadata["stages"]) == {"train", "write-cams"}
    assert SipeConfig.knobs()["seeds_infer"].metadata["stages"] == ("write-cams",)


def test_ablations_are_the_paper_s_and_change_something():
    assert set(ABLATIONS) == {"base", "no_gsc", "no_walk", "alpha_map", "seeds_x4", "mask_cam", "present_bg"}
    usual = SipeConfig()
    for name, knobs in ABLATIONS.items():
        assert typed_knobs(METHOD, knobs) != usual, name
    table = PAPER.table("4")
    printed = {c.row: c.value for c in load_claims("sipe") if c.table == "4"}
    assert printed == {"base": 50.1, "no_gsc": 53.2, "SIPE": 58.6}
    assert {row.name for row in table.rows} == set(printed)


def test_its_own_background_decides_without_a_threshold():
    """sipe.md 2.4: label map = argmax; plain CAMs have a threshold."""
    method = golden.make("sipe", **SMALL)
    group = golden.batch(method)
    found = method.predict(group.views["view1"], group.tags_BC, want=frozenset({"cam"}))
    assert found.background_BHW is not None
    assert found.background_BHW.shape == (4, 48, 48)
    assert float(found.background_BHW.max()) <= 1
    maps = score_maps(found, group.tags_BC)[0]
    assert maps.classes[-1] == BACKGROUND
    plain = golden.make("sipe", **SMALL, maps="cam")
    found = plain.predict(group.views["view1"], group.tags_BC, want=frozenset({"cam"}))
    assert found.background_BHW is None
    assert BACKGROUND not in score_maps(found, group.tags_BC)[0].classes


@pytest.mark.parametrize(("family", "tier"), [("shapes", "smoke"), ("voc", "lab"), ("voc", "paper"), ("coco", "paper")])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_presets_and_their_search_space_hold_together(family, tier, variant):
    values = preset(family, tier, variant)
    config = typed_knobs(METHOD, dict(values.knobs))
    assert config.problems() == []
    assert isinstance(config, SipeConfig)
    assert SPACE.check(SipeConfig, dataclasses.asdict(config)) == []
    assert set(values.networks) == {"segmenter", "affinity"}
    assert registry().spec("sipe").version == 1


def test_data_without_background_is_refused():
    with pytest.raises(BadInput, match="no background class"):
        golden.make("sipe", **SMALL, has_background=False)


def test_released_has_the_published_quirks():
    released = preset("voc", "paper", "released").knobs
    assert released == {"imagenet_normalisation": True, "displacement": True}
