"""`irn` from tags to the segmenter: what stages depend on, kills, damage, scores, and masks that must not matter."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import golden_curves as golden
import numpy as np
import polars as pl
import pytest
import torch

import harness.store
from harness.api.images import Maps
from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.datasets.io import image_files
from harness.datasets.shapes import Shapes
from harness.engine.context import Context
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.engine.stages import per_image
from harness.engine.stages.fan_out import fanned_out
from harness.errors import BadInput
from harness.plan.payload import Payload
from harness.plan.plan import make_plan
from harness.plan.recipes import recipe_of
from methods.irn.config import IrnConfig
from methods.irn.rules import IrnRules
from methods.parts.stages.masks import MaskWorker

WORDS = [
    "method=irn", "ray=off", "data.n_train=8", "data.n_val=3", "data.n_test=3", "crop=48", "batch=4", "group=2",
    "iterations=4", "affinity.iterations=3", "affinity.crop=96", "segmenter.iterations=3",
    "segmenter.backbone=shapes_cnn", "segmenter.crop=48", "segmenter.batch=4",
    "segmenter.group=4", "irn.rw_steps=2", "checkpoint_every=1", "keep=last,best,maps",
]  # fmt: skip
STAGES = ["train", "write-cams", "refine", "train-affinity", "masks", "train-segmenter"]
MADE = {"train": "network", "write-cams": "cams", "refine": "ir-labels", "train-affinity": "affinity",
        "masks": "masks", "train-segmenter": "segmenter"}  # fmt: skip


def payload_of(store: Path, *more: str, words: Sequence[str] = WORDS) -> Payload:
    plan = make_plan(parse([*words, f"store={store}", *more], Words, "train", registry().names()), single=True)
    study = dataclasses.replace(plan.studies[0].study, trials=1, space=None)
    return plan.resolve(study, {}, study.seeds[0])


def done(store: Path) -> dict[str, list[Path]]:
    """By what a stage makes: the files that say it is done."""
    found: dict[str, list[Path]] = {}
    for path in sorted(store.glob("cache/*/done.json")):
        for name in json.loads(path.read_text())["digests"]:
            found.setdefault(name, []).append(path)
    return found


def digests(store: Path) -> dict[str, set[str]]:
    return {
        name: {json.loads(p.read_text())["digests"][name] for p in paths}
        for name, paths in done(store).items()
        if not name.endswith(".losses")
    }


def digest(store: Path, payload: Payload) -> str:
    return harness.store.digest(harness.store.load(store), payload.key)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Payload]:
    store = tmp_path_factory.mktemp("whole")
    payload = payload_of(store)
    execute(payload, LocalSession())
    return store, payload


def test_the_stages_are_those_of_the_card(whole: tuple[Path, Payload]) -> None:
    store, payload = whole
    recipe = recipe_of(payload.run)
    assert [s.name for s in recipe.stages] == STAGES
    assert recipe.targets == ("cam", "pseudo", "segmentation")
    assert payload.run.total == 4 + 3 + 3
    assert set(MADE.values()) <= set(done(store))
    steps = harness.store.load(store).steps
    assert {r["stage"]: r["name"] for r in steps.select("stage", "name").unique().to_dicts()} == {
        "train": "cls", "train-affinity": "edge", "train-segmenter": "seg"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("refine", "stages"),
    [(how, ["train", "write-cams", "masks", "train-segmenter"]) for how in ("none", "par", "crf")] + [("irn", STAGES)],
)
def test_the_knob_refine_says_which_stages_there_are(tmp_path: Path, refine: str, stages: list[str]) -> None:
    words = [w for w in WORDS if refine == "irn" or not w.startswith("affinity")]
    run = payload_of(tmp_path, f"irn.refine={refine}", words=words).run
    assert [s.name for s in recipe_of(run).stages] == stages


def test_a_knob_makes_again_what_reads_it_and_what_depends_on_that(whole: tuple[Path, Payload]) -> None:
    """Two trials that differ in the walk train the classifier once, and the boundary network too."""
    store, payload = whole
    for word, again in {
        "irn.mask_background=0.4": ["masks"],
        "irn.rw_beta=6": ["masks"],
        "irn.aff_lr=0.05": ["train-affinity", "masks"],
        "irn.conf_fg=0.4": ["refine", "train-affinity", "masks"],
        "irn.cam_scales=1,0.5": ["write-cams", "refine", "train-affinity", "masks"],
        "irn.lr=0.01": STAGES[:5],
    }.items():
        before = {name: set(paths) for name, paths in done(store).items()}
        other = payload_of(store, "until=masks", word)
        assert other.key != payload.key
        execute(other, LocalSession())
        made = [stage for stage in STAGES if len(done(store)[MADE[stage]]) > len(before[MADE[stage]])]
        # A stage whose inputs came out equal has the same key, and is not made again.
        assert set(made) <= set(again), word
        assert made[0] == again[0], word
        row = next(r for r in harness.store.load(store).runs.to_dicts() if r["key"] == other.key)
        assert ("reused" in json.loads(row["seconds"])) == (again != STAGES[:5]), word


def test_golden_curve() -> None:
    golden.check("irn", "default", golden.train(golden.make("irn", backbone="shapes_cnn")))


@pytest.mark.slow
def test_a_run_of_two_threads_shares_labels_among_processes_and_writes_the_same(
    whole: tuple[Path, Payload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(*given: Any, **words: Any) -> Any:
        asked.append(given[0])
        return fanned_out(*given, **words)

    monkeypatch.setattr(per_image, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(per_image, "fanned_out", counted)
    payload = payload_of(tmp_path, "until=masks", "threads=2")
    execute(payload, LocalSession())
    assert asked == ["methods.irn.stages:labels"]
    assert digests(tmp_path)["ir-labels"] <= digests(whole[0])["ir-labels"]


class Stop(BaseException):
    """Ends a run as a kill would."""


@pytest.mark.parametrize(("stage", "at"), list(zip(STAGES, (2, 6, 3, 5, 6, 8), strict=True)))
def test_killed_in_any_stage_and_resumed_to_the_same_bytes(
    whole: tuple[Path, Payload], tmp_path: Path, stage: str, at: int
) -> None:
    store, payload = whole
    here, report = payload_of(tmp_path), Context.report_progress

    def dying(self: Context, name: str, step: int, total: int, losses: Any = None) -> None:
        report(self, name, step, total, losses)
        if name == stage and step == at:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "report_progress", dying)
        # Masks are made by the batch, and reported so.
        patch.setattr(MaskWorker, "batch", 2)
        with pytest.raises(Stop):
            execute(here, LocalSession())
    execute(here, LocalSession())
    assert here.key == payload.key
    assert digest(tmp_path, here) == digest(store, payload)
    for name, found in digests(tmp_path).items():
        assert found <= digests(store)[name], name


def test_a_damaged_input_is_made_again_and_one_that_goes_in_between_is_named(
    whole: tuple[Path, Payload], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = payload_of(tmp_path, "until=masks")
    execute(payload, LocalSession())
    before, (cams,) = digests(tmp_path), done(tmp_path)["cams"]
    victim = sorted(cams.parent.glob("files/*.npz"))[0]
    victim.write_bytes(victim.read_bytes()[:-7])
    execute(payload_of(tmp_path, "until=masks", "irn.mask_background=0.3"), LocalSession())
    assert "is not what was written: stage write-cams is made again" in capsys.readouterr().out
    assert digests(tmp_path)["cams"] == before["cams"]
    real = image_files.read

    def gone(folder: Path, image_id: str) -> Any:
        found = image_files.existing(folder, image_id)
        if found is not None and found.suffix == ".npz":
            found.unlink()
        return real(folder, image_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engine.context.read", gone)
        with pytest.raises(BadInput) as error:
            execute(payload_of(tmp_path, "until=masks", "irn.mask_background=0.35"), LocalSession())
    problem = error.value.problems[0]
    assert "is not there" in problem.found
    assert "run the same command again" in problem.fix
    execute(payload_of(tmp_path, "until=masks", "irn.mask_background=0.35"), LocalSession())


def test_every_stage_is_scored_and_train_chooses_nothing(whole: tuple[Path, Payload]) -> None:
    store, payload = whole
    evals = harness.store.load(store).evals.filter(pl.col("key") == payload.key)
    found = {(r["target"], r["split"]) for r in evals.to_dicts()}
    assert found == {(t, s) for t in ("cam", "pseudo") for s in ("val", "test", "train")} | {
        ("segmentation", "val"), ("segmentation", "test")
    }  # fmt: skip
    cam = evals.filter(pl.col("target") == "cam")
    rules = {(r["split"], r["threshold_rule"]): r["threshold"] for r in cam.to_dicts()}
    assert rules["train", "held-out"] == rules["test", "held-out"] == rules["val", "held-out"]


def test_masks_of_training_images_change_no_key_and_no_weight(
    whole: tuple[Path, Payload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With noise for masks of `train` all is made alike, and only the scores on train differ."""
    store, payload = whole
    real = Shapes.mask
    tags = Shapes.tags

    def noise(self: Shapes, image_id: str) -> np.ndarray:
        mask = real(self, image_id)
        if "train" not in image_id:
            return mask
        return np.random.default_rng(0).integers(0, self.num_labels, mask.shape).astype(np.uint8)

    def true_tags(self: Shapes, image_id: str) -> np.ndarray:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Shapes, "mask", real)
            return tags(self, image_id)

    assert all(re.search("train", i) for i in Shapes.ids(_opened(), "train"))
    monkeypatch.setattr(Shapes, "mask", noise)
    monkeypatch.setattr(Shapes, "tags", true_tags)
    again = payload_of(tmp_path)
    assert again.key == payload.key
    outcome = execute(again, LocalSession())
    for name, found in digests(tmp_path).items():
        assert found <= digests(store)[name], name
    first, second = (harness.store.load(s) for s in (store, tmp_path))
    same = {split: counts(first, payload, split).equals(counts(second, payload, split)) for split in SPLITS}
    assert same == {"val": True, "test": True, "train": False}
    assert np.isfinite(outcome.objective)


SPLITS = ("val", "test", "train")


def counts(results: harness.store.Results, payload: Payload, split: str) -> pl.DataFrame:
    """Counts of a run on a split."""
    evals = results.evals.filter(pl.col("key") == payload.key, pl.col("split") == split)
    return results.counts.join(evals.select("eval"), on="eval").sort(pl.all())


def _opened() -> Shapes:
    from harness.datasets import open_dataset

    found = open_dataset("shapes", options={"n_train": "8", "n_val": "3", "n_test": "3"})
    assert isinstance(found, Shapes)
    return found


def test_labels_of_stored_half_precision_are_those_of_float32(whole: tuple[Path, Payload]) -> None:
    """Of what the stage wrote: the maps as float32 differ from their halves by rounding alone, and labels hardly."""
    store, _ = whole
    rules = IrnRules(IrnConfig(), 48)
    same = pixels = 0
    for path in done(store)["cams"][0].parent.glob("files/*.npz"):
        maps: Maps = image_files.read(path.parent, path.stem)
        labels_n = torch.from_numpy(maps.classes.astype(np.int64) + 1)
        rng = np.random.default_rng(len(maps.classes))
        exact, half = [], []
        for one in maps.scales["cam"]:
            # Any float32 that rounds to what is stored.
            step = np.spacing(one.astype(np.float16)).astype(np.float32)
            near = one.astype(np.float32) + 0.49 * step * rng.uniform(-1, 1, one.shape).astype(np.float32)
            exact.append(torch.from_numpy(near).clamp(min=0))
            half.append(torch.from_numpy(one))
        a, b = (rules.confident(m, labels_n, (96, 96)) for m in (exact, half))
        same += int((a == b).sum())
        pixels += a.numel()
    assert same / pixels >= 0.999
