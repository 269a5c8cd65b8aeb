"""Predicting with a run of several networks: the one that predicts the target, at its own size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from recipe_toys import Second, registered

import harness
import harness.store
from harness import predict, train
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.scoring.confusion import image_counts
from harness.store.__main__ import run as store_run

OPTIONS = {"n_train": "8", "n_val": "3", "n_test": "4"}


@pytest.fixture(autouse=True)
def method() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("predicts") / "store"
    with registered():
        words = ["method=twostage", "ray=off", *(f"data.{k}={v}" for k, v in OPTIONS.items()), f"store={store}"]
        assert main(train.run, words) == 0
    return store


def key_of(store: Path) -> str:
    (key,) = harness.store.load(store).runs["key"]
    return str(key)


def test_the_network_of_the_target_predicts_what_it_was_scored_by(store: Path, tmp_path: Path) -> None:
    dataset, results = open_dataset("shapes", options=OPTIONS), harness.store.load(store)
    run = harness.load_run(store, key_of(store))
    assert isinstance(run.method, Second)
    assert run.predictor.crop == 32
    rule = (pl.col("target") == "segmentation") & (pl.col("split") == "test")
    counts = results.counts.filter(pl.col("eval") == results.evals.filter(rule)["eval"][0])
    for image_id in dataset.ids("test"):
        labels_HW = run.predict(Image.fromarray(dataset.image(image_id)))
        expected = np.zeros((dataset.num_labels, 3), np.int64)
        for c, *numbers in counts.filter(pl.col("image") == image_id).select("class", "tp", "fp", "fn").iter_rows():
            expected[c] = numbers
        assert (image_counts(labels_HW, dataset.mask(image_id), dataset.num_labels) == expected).all()


def test_a_target_that_a_stage_writes_is_exported_and_not_predicted(store: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "photos/a.png")
    (tmp_path / "tags.json").write_text('{"a": []}')
    words = [f"run={key_of(store)}", f"store={store}", f"images={tmp_path}/photos", f"out={tmp_path}/out"]
    assert main(predict.run, [*words, "target=cam", f"tags={tmp_path}/tags.json"]) == 2
    said = capsys.readouterr().err
    assert "no network predicts cam of twostage: a stage writes it" in said
    assert "target=segmentation" in said
    export = ["export-masks", f"run={key_of(store)}", f"store={store}"]
    assert main(store_run, [*export, f"out={tmp_path}/masks"]) == 0, "the segmenter reads the maps, so they are kept"
    assert "cam of twostage on train, 8 images, of its stage's files" in capsys.readouterr().out
    assert len(list((tmp_path / "masks/SegmentationClass").glob("*.png"))) == 8
    assert main(store_run, ["gc", f"store={store}", "keep=last"]) == 0
    assert main(store_run, [*export, f"out={tmp_path}/gone"]) == 2
    assert "run it again with keep=maps" in capsys.readouterr().err
