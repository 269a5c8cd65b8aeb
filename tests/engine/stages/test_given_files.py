"""A user's files in a recipe: what stages read of them, what keys hold, and files that change while a run trains."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from given_toys import registered

import harness.store
from harness.api.recipe import Given, Recipe, Train
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.datasets import open_dataset
from harness.engine.context import Context
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.errors import BadInput
from harness.plan.payload import Payload
from harness.plan.plan import make_plan

SIZES = ["data.n_train=8", "data.n_val=3", "data.n_test=4"]
WORDS = ["method=seeded", "ray=off", "checkpoint_every=1", *SIZES]


@pytest.fixture(autouse=True)
def method() -> Iterator[None]:
    with registered():
        yield


def payload_of(store: Path, *more: str) -> Payload:
    plan = make_plan(parse([*WORDS, f"store={store}", *more], Words, "train", ["seeded"]), single=True)
    study = dataclasses.replace(plan.studies[0].study, trials=1, space=None)
    # What travels to another process says the same.
    return Payload.from_dict(plan.resolve(study, {}, study.seeds[0]).to_dict())


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    dataset = open_dataset("shapes", options=dict(w.removeprefix("data.").split("=") for w in SIZES))
    folder = tmp_path / "seeds"
    folder.mkdir()
    for image_id in dataset.ids("train"):
        classes = np.flatnonzero(dataset.tags(image_id))
        label_HW = dataset.mask(image_id)[::8, ::8]
        cam = np.stack([label_HW == c + 1 for c in classes]).astype(np.float16)
        np.savez(folder / f"{image_id.replace('/', '~')}.npz", classes=classes.astype(np.int16), cam=cam)
    return folder


def losses(store: Path, key: str) -> list[float]:
    steps = harness.store.load(store).steps.filter((pl.col("key") == key) & (pl.col("stage") == "train-segmenter"))
    return steps.sort("step")["value"].to_list()


def test_a_stage_learns_from_the_files_and_shares_the_others(tmp_path: Path, seeds: Path) -> None:
    store = tmp_path / "store"
    plain, seeded = payload_of(store), payload_of(store, f"seeded.seeds={seeds}")
    assert execute(plain, LocalSession()).status == "done"
    assert execute(seeded, LocalSession()).status == "done"
    assert losses(store, plain.key) != losses(store, seeded.key)
    # The first network and its maps are made once: the knob is the second network's alone.
    assert len(list((store / "cache").iterdir())) == 4
    assert len(list(seeds.iterdir())) == 8


def test_keys_hold_the_content_wherever_the_folder_lies(tmp_path: Path, seeds: Path) -> None:
    plain, seeded = payload_of(tmp_path), payload_of(tmp_path, f"seeded.seeds={seeds}")
    digest = seeded.run.knobs["seeds"]
    assert str(seeds) not in str(seeded.run.to_dict())
    assert seeded.machine.folders == {digest: str(seeds)}
    assert plain.machine.folders == {}
    shutil.copytree(seeds, tmp_path / "moved")
    moved = payload_of(tmp_path, f"seeded.seeds={tmp_path / 'moved'}")
    assert (moved.key, moved.machine.folders) == (seeded.key, {digest: str(tmp_path / "moved")})
    path = next((tmp_path / "moved").iterdir())
    with np.load(path) as f:
        classes, cam = f["classes"], f["cam"]
    np.savez(path, classes=classes, cam=cam / 2)
    assert payload_of(tmp_path, f"seeded.seeds={tmp_path / 'moved'}").key not in (seeded.key, plain.key)


def test_files_that_change_while_a_run_trains_end_it(
    tmp_path: Path, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    seeded = payload_of(store, f"seeded.seeds={seeds}")
    report = Context.report_progress

    def spoiling(self: Context, name: str, step: int, *more: object) -> None:
        report(self, name, step, *more)
        if (name, step) == ("train-segmenter", 8):
            for path in seeds.iterdir():
                with np.load(path) as f:
                    classes, cam = f["classes"], f["cam"]
                np.savez(path, classes=classes, cam=1 - cam)

    monkeypatch.setattr(Context, "report_progress", spoiling)
    with pytest.raises(BadInput) as e:
        execute(seeded, LocalSession())
    (problem,) = e.value.problems
    assert problem.where == f"seeded.seeds, {seeds}"
    assert problem.found == "changed since the plan: its files"
    assert harness.store.load(store).runs.is_empty()
    monkeypatch.undo()
    # The same command plans anew: another key, and nothing of what was learned from both.
    again = payload_of(store, f"seeded.seeds={seeds}")
    assert again.key != seeded.key
    assert execute(again, LocalSession()).status == "done"


def test_what_is_wrong_with_the_files_is_said_before_anything_trains(tmp_path: Path, seeds: Path) -> None:
    next(seeds.iterdir()).unlink()
    with pytest.raises(BadInput, match=r"seeded\.seeds: .* has no file for 1 images"):
        payload_of(tmp_path, f"seeded.seeds={seeds}")
    with pytest.raises(BadInput, match=r"seeded\.seeds: .*nowhere is no folder"):
        payload_of(tmp_path, f"seeded.seeds={tmp_path / 'nowhere'}")


def test_a_recipe_hands_its_given_artefacts_on() -> None:
    recipe = Recipe((Train(label="masks"),), {"segmentation": "network"}, (Given(name="masks", knob="pseudo"),))
    of_base = recipe.of_base()
    assert of_base.given == (Given(name="base-masks", knob="pseudo", owner="base"),)
    assert of_base.stages[0].reads == ("base-masks",)
    assert recipe.until("train").given == recipe.given
    assert recipe.through_plugin().given == (Given(name="masks", knob="pseudo", owner="base"),)
    with pytest.raises(BadInput, match="reads 'masks', which no stage before it makes"):
        Recipe((Train(label="masks"),), {"segmentation": "network"})
    with pytest.raises(BadInput, match="'masks' is there twice"):
        Recipe((Train(network="masks"),), {"segmentation": "masks"}, (Given(name="masks", knob="pseudo"),))
