"""The plan files of papers, read for miniatures: who runs, from what, in which sizes, scored how."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from harness.api.inference import PROTOCOLS
from harness.api.registry import registry
from harness.cli.parsing import parse_rows
from harness.cli.run_words import Words
from harness.datasets import cityscapes, voc
from harness.errors import BadInput
from harness.plan.plan import Plan, make_plan
from harness.plan.recipes import recipe_of

PLANS = Path(__file__).parents[2] / "docs" / "plans"
SPARSE = {"agmm", "ema", "gatedcrf"}


def plan_of(name: str, *words: str) -> Plan:
    argv = [f"plan={PLANS / name}.yaml", "backbone.weights=random", *words]
    return make_plan(parse_rows(argv, Words, "sweep", registry().names(), collect=True))


def rows(plan: Plan) -> set[tuple[str, str, str]]:
    return {(s.run.method, s.ablation, s.run.labels) for s in plan.studies}


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cityscapes with fine and coarse annotations and AGMM's clicks."""
    monkeypatch.setattr(cityscapes, "SIZES", miniatures.CITY_SIZES)
    root = miniatures.cityscapes(tmp_path, clicks=True)
    for city, ids in miniatures.CITY_TRAIN.items():
        folder = root / "gtCoarse/train" / city
        folder.mkdir(parents=True)
        for image_id in ids:
            coarse = miniatures.city_mask(image_id)
            coarse[::2] = 255
            Image.fromarray(coarse.astype(np.uint8)).save(folder / f"{image_id}_gtCoarse_labelTrainIds.png")
    return root


def test_agmm_on_voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """agmm.md 3, 4: 321 pixels, 16 images, 80 epochs, seven scales with flip; all on one network, scored alike."""
    monkeypatch.setattr(voc, "SIZES", miniatures.VOC_SIZES)
    plan = plan_of("agmm_voc", f"data.root={miniatures.voc(tmp_path)}", "data.masks=SegmentationClassAug")
    kinds = ("points", "scribbles")
    assert rows(plan) == {
        *((m, "", k) for m in SPARSE for k in kinds), *(("agmm", "base", k) for k in kinds), ("full", "", "masks"),
    }  # fmt: skip
    runs = [s.run for s in plan.studies]
    assert {(r.backbone, r.decoder) for r in runs} == {("resnet101s.gluon_in1k", "deeplabv3plus")}
    assert {r.inference for r in runs} == {PROTOCOLS["agmm"]}
    sizes = {(r.crop, r.batch, r.group, r.iterations) for r in runs if r.method in SPARSE}
    assert sizes == {(321, 16, 16, 52880)}
    assert {len(s.study.seeds) for s in plan.studies} == {3}


def test_agmm_on_cityscapes(street: Path) -> None:
    """agmm.md 3, 4: 721 pixels, twelve images in groups of four, 240 epochs, tiles of 721 pixels, 241 apart."""
    plan = plan_of("agmm_cityscapes", f"data.root={street}")
    kinds = ("clicks20", "clicks50", "clicks100", "coarse")
    assert rows(plan) == {
        *((m, "", k) for m in SPARSE for k in kinds), *(("agmm", "base", k) for k in kinds), ("full", "", "masks"),
    }  # fmt: skip
    runs = [s.run for s in plan.studies]
    assert {(r.backbone, r.decoder, r.crop) for r in runs} == {("resnet50s.gluon_in1k", "deeplabv3plus", 721)}
    assert {r.inference for r in runs} == {PROTOCOLS["agmm-tiles"]}
    mine = [r for r in runs if r.method in SPARSE]
    assert {(r.batch, r.group, r.iterations) for r in mine} == {(12, 4, 59280)}
    assert {r.knobs["multi_grid"] for r in mine} == {True}


def test_the_matrix_of_sparse_labels_in_one_frame(tmp_path: Path) -> None:
    """Kinds, lengths and styles of scribbles, ablations: one network and equal sizes, so that rows differ in nothing
    else."""
    words = ["data=shapes", "data.n_train=16", "data.n_val=4", "data.n_test=4", "backbone=shapes_vit"]
    argv = [f"plan={PLANS / 'sparse'}.yaml", *words]
    plan = make_plan(parse_rows(argv, Words, "sweep", registry().names(), collect=True))
    runs = [s.run for s in plan.studies]
    assert {(r.backbone, r.decoder, r.crop, r.batch, r.group, r.iterations) for r in runs if r.method != "full"} == {
        ("shapes_vit", "deeplabv3plus", 96, 16, 16, 320)
    }
    assert {r.method for r in runs} == SPARSE | {"pce", "full"}
    styles = {tuple(sorted((r.options or {}).items())) for r in runs}
    assert {dict(o).get("scribble_length") for o in styles} == {None, "0", "0.5"}
    assert {dict(o).get("scribble_style") for o in styles} == {None, "curve"}
    assert len({plan.resolve(s.study, {}, 0).key for s in plan.studies}) == len(plan.studies)


def test_irn_on_voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """irn.md 3: ResNet-50, 512 pixels, 3,305 and 990 steps; rows of components end with the masks."""
    monkeypatch.setattr(voc, "SIZES", miniatures.VOC_SIZES)
    plan = plan_of("irn_voc", f"data.root={miniatures.voc(tmp_path)}", "data.masks=SegmentationClassAug")
    runs = {s.ablation: s.run for s in plan.studies}
    assert {name: run.until for name, run in runs.items()} == {
        "": None, "no_walk": "masks", "no_crf": "masks", "dp": "masks"
    }  # fmt: skip
    whole = runs[""]
    assert (whole.backbone, whole.crop, whole.batch, whole.group, whole.iterations) == (
        "resnet50.tv_in1k", 512, 16, 16, 3305
    )  # fmt: skip
    affinity, segmenter = whole.networks["affinity"], whole.networks["segmenter"]
    assert (affinity["iterations"], affinity["batch"], affinity["group"], affinity["crop"]) == (990, 32, 32, 512)
    assert (segmenter["decoder"], segmenter["backbone"], segmenter["crop"]) == ("deeplabv2", whole.backbone, 448)
    assert (whole.inference, whole.crf, whole.cam_threshold) == (PROTOCOLS["deeplab"], "deeplab", 0.15)
    assert runs["no_walk"].networks == {}
    assert [s.name for s in recipe_of(runs["no_walk"]).stages] == ["train", "write-cams", "masks"]
    assert set(runs["dp"].networks) == {"affinity"}


def test_a_recipe_s_crf_that_is_not_installed_is_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voc, "SIZES", miniatures.VOC_SIZES)
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *of: None if name == "pydensecrf" else real(name, *of))
    words = [f"data.root={miniatures.voc(tmp_path)}", "data.masks=SegmentationClassAug", "methods=irn", "data=voc"]
    argv = [*words, "backbone.weights=random", "protocol=fixed"]
    with pytest.raises(BadInput) as error:
        make_plan(parse_rows(argv, Words, "sweep", registry().names()))
    assert [p.where for p in error.value.problems] == ["stage refine"]
    assert "--extra crf" in error.value.problems[0].fix
    make_plan(parse_rows([*argv, "irn.label_crf=false"], Words, "sweep", registry().names()))
