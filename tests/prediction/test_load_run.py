"""`harness.load_run`, and a stored config that is run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import harness
import harness.store
from harness import predict, train
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.errors import BadInput

OPTIONS = {"n_train": "8", "n_val": "4", "n_test": "4"}
WORDS = ["ray=off", *(f"data.{k}={v}" for k, v in OPTIONS.items()), "crop=48", "batch=4", "group=2", "iterations=2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """One run, with a knob and a protocol of its own."""
    store = tmp_path_factory.mktemp("loaded") / "store"
    words = ["method=cam", *WORDS, "seed=3", "cam.w_seg=0.25", "scales=original", "flip=mean", f"store={store}"]
    assert main(train.run, words) == 0
    return store


def row_of(store: Path) -> dict:
    return harness.store.load(store).runs.row(0, named=True)


def test_importing_the_package_is_free_of_torch():
    code = "import harness, sys; print(harness.__version__, 'torch' in sys.modules, 'polars' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[1:] == ["False", "False"]
    assert said[0].count(".") == 2
    with pytest.raises(AttributeError, match="lode_run"):
        _ = harness.lode_run


def test_a_loaded_run_has_method_and_config_and_predicts_as_the_command(store, tmp_path):
    run = harness.load_run(store, row_of(store)["key"][:8])
    assert (run.key, run.config.seed, run.config.method_config().w_seg) == (row_of(store)["key"], 3, 0.25)
    assert not run.method.training
    assert run.class_names == open_dataset("shapes").class_names
    photo = Image.fromarray(open_dataset("shapes", options=OPTIONS).image("test/000000"))
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "a.png")
    words = [f"run={run.key}", f"store={store}", f"images={tmp_path}/photos", f"out={tmp_path}/out", "threads=1"]
    assert main(predict.run, words) == 0
    labels_HW = run.predict(photo)
    assert (np.asarray(Image.open(tmp_path / "out/masks/a.png")) == labels_HW).all()
    assert run.overlay(photo).size == photo.size
    assert run.predict(photo.convert("L")).shape == (photo.height, photo.width)
    first = run.class_names[1]
    assert set(np.unique(run.predict(photo, tags=[first]))) <= {0, 1}
    with pytest.raises(BadInput, match="no class of this run"):
        run.predict(photo, tags=["unicorn"])
    with pytest.raises(BadInput, match="8-bit"):
        run.predict(Image.fromarray(np.zeros((4, 4), np.uint16)))
    cams = harness.load_run(store, run.key, target="cam")
    with pytest.raises(BadInput, match="are needed"):
        cams.predict(photo)
    assert set(np.unique(cams.predict(photo, tags=[first]))) <= {0, 1}
    with pytest.raises(BadInput, match="'9' is no scale"):
        harness.load_run(store, run.key, scales="9")
    with pytest.raises(BadInput, match="not in the store"):
        harness.load_run(store, "nope")


def test_a_stored_config_has_the_key_of_its_run(store, tmp_path, capsys):
    row = row_of(store)
    (tmp_path / "run.json").write_text(row["config"])
    words = [f"config={tmp_path}/run.json", "ray=off", f"store={store}"]
    assert main(train.run, words) == 0
    assert f"run {row['key']}: cam" in capsys.readouterr().out
    assert harness.store.load(store).runs.height == 1, "nothing is run again"
    assert main(train.run, [*words[:2], f"store={tmp_path}/fresh"]) == 0
    fresh = harness.store.load(tmp_path / "fresh")
    assert fresh.runs["key"].to_list() == [row["key"]]
    assert harness.store.digest(fresh) == harness.store.digest(harness.store.load(store))
    assert main(train.run, [*words, "seed=4", "dry_run=true"]) == 0


def test_a_config_is_run_as_it_is(store, tmp_path, capsys):
    (tmp_path / "run.json").write_text(row_of(store)["config"])
    words = [f"config={tmp_path}/run.json", "ray=off", f"store={store}"]
    assert main(train.run, [*words, "crop=64", "cam.w_seg=1"]) == 2
    said = capsys.readouterr().err
    assert "crop: is said by config= already" in said
    assert "cam.w_seg: is said by config= already" in said
    (tmp_path / "other.json").write_text(json.dumps({"method": "cam"}))
    assert main(train.run, [f"config={tmp_path}/other.json"]) == 2
    assert "holds no config" in capsys.readouterr().err
    assert main(train.run, [f"config={tmp_path}/none.json"]) == 2
    assert "cannot be read" in capsys.readouterr().err
