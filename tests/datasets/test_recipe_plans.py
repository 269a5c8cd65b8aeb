"""The plan files of multi-stage methods, read for miniatures: who runs, in which sizes, how far."""

from __future__ import annotations

import re
from pathlib import Path

import miniatures
import pytest

from harness.api.inference import PROTOCOLS
from harness.api.registry import registry
from harness.cli.parsing import parse_rows
from harness.cli.run_words import Words
from harness.datasets import coco, voc
from harness.plan.plan import Plan, make_plan
from harness.plan.recipes import recipe_of
from harness.tuning.describe import plan_text

PLANS = Path(__file__).parents[2] / "docs" / "plans"


def plan_of(name: str, *words: str) -> Plan:
    argv = [f"plan={PLANS / name}.yaml", "backbone.weights=random", "segmenter.weights=random", *words]
    return make_plan(parse_rows(argv, Words, "sweep", registry().names(), collect=True))


def rows(plan: Plan) -> set[tuple[str, str, str | None]]:
    return {(s.run.method, s.ablation, s.run.until) for s in plan.studies}


def test_sipe_on_voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sipe.md 2, 3: 3,305 steps of 16 images at 512 pixels, 990 of the boundary network, DeepLabV2 on ResNet-101."""
    monkeypatch.setattr(voc, "SIZES", miniatures.VOC_SIZES)
    plan = plan_of("sipe_voc", f"data.root={miniatures.voc(tmp_path)}", "data.masks=SegmentationClassAug")
    ablations = ("base", "no_gsc", "no_walk", "alpha_map", "seeds_x4", "mask_cam", "present_bg")
    assert rows(plan) == {("sipe", "", None), ("irn", "", None), *(("sipe", name, "masks") for name in ablations)}
    whole = next(s.run for s in plan.studies if (s.run.method, s.ablation) == ("sipe", ""))
    assert (whole.backbone, whole.crop, whole.batch, whole.group) == ("resnet50.tv_in1k", 512, 16, 16)
    assert (whole.iterations, whole.total) == (3305, 3305 + 990 + 20000)
    assert whole.networks["segmenter"]["backbone"] == "resnet101.tv_in1k"
    assert whole.networks["segmenter"]["decoder"] == "deeplabv2"
    assert (whole.inference, whole.crf) == (PROTOCOLS["deeplab"], "deeplab")
    assert {len(s.study.seeds) for s in plan.studies} == {3}
    shorter = next(s.run for s in plan.studies if s.ablation == "no_gsc")
    assert shorter.total == 3305 + 990


def test_sipe_on_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sipe.md 2.5, 3: 25,650 steps, no boundary network."""
    monkeypatch.setattr(coco, "SIZES", miniatures.COCO_SIZES)
    plan = plan_of("sipe_coco", f"data.root={miniatures.coco(tmp_path)}")
    assert rows(plan) == {("sipe", "", None), ("sipe", "base", "masks")}
    whole = next(s.run for s in plan.studies if not s.ablation)
    assert (whole.iterations, set(whole.networks)) == (25650, {"segmenter"})
    assert whole.knobs["refine"] == "crf"


def test_irn_on_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """irn.md 3, sipe.md 2.5: 25,865 steps and no walk by default; the row with the walk has 7,758 of its network."""
    monkeypatch.setattr(coco, "SIZES", miniatures.COCO_SIZES)
    plan = plan_of("irn_coco", f"data.root={miniatures.coco(tmp_path)}", "affinity.weights=random")
    runs = {s.run.knobs["refine"]: s.run for s in plan.studies}
    assert {name: run.until for name, run in runs.items()} == {"crf": None, "none": "masks", "irn": "masks"}
    stages = {name: [stage.name for stage in recipe_of(run).stages] for name, run in runs.items()}
    assert stages == {
        "crf": ["train", "write-cams", "masks", "train-segmenter"],
        "none": ["train", "write-cams", "masks"],
        "irn": ["train", "write-cams", "refine", "train-affinity", "masks"],
    }
    whole = runs["crf"]
    assert (whole.iterations, whole.total, whole.crop) == (25865, 25865 + 100000, 512)
    assert whole.networks["segmenter"]["backbone"] == whole.backbone
    assert runs["irn"].total == 25865 + 7758
    assert [whole.knobs[name] for name in ("conf_fg", "conf_bg", "mask_background")] == [0.35, 0.1, 0.25]
    assert {len(s.study.seeds) for s in plan.studies} == {3}
    text = plan_text(plan, full=True)
    assert len(re.findall("key of trial 0", text)) == 3
    assert "disk: about" in text
    # The words of the line name networks that the rows do not train: said, not refused.
    assert any(note.startswith("segmenter.weights is not read by irn") for note in plan.parts[1].notes)
