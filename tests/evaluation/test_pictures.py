"""Pictures of a finished run: predicted once, kept as artifacts, refused in words."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from harness.datasets import open_dataset
from harness.datasets.io.colours import PALETTE
from harness.evaluation.picture_files import KIND, picture_path
from harness.evaluation.pictures import add_pictures
from harness.store import Store, load
from reports.page.build import page_of

WORDS = ["method=cam", "ray=off", "iterations=2", "crop=32", "batch=4", "group=2", "threads=1", "data.n_train=8",
         "data.n_val=4", "data.n_test=5"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    before, sys.argv = sys.argv, ["harness.train", *WORDS, f"store={store.root}"]
    try:
        with pytest.raises(SystemExit) as end:
            runpy.run_module("harness.train", run_name="__main__")
    finally:
        sys.argv = before
    assert end.value.code == 0
    return store


def test_the_page_predicts_what_is_missing_once(trained: Store) -> None:
    (key,) = load(trained.root).runs["key"].to_list()
    assert "pictures are not in the store" in page_of(trained.root)
    text = page_of(trained.root, pictures=True)
    assert "pictures are not in the store" not in text
    assert "not predicted" not in text
    kept = load(trained.root).artifacts.filter(kind=KIND)
    # Three images (one row has no spread) as photo, truth, cam, pseudo mask and segmentation.
    assert kept.height == 15
    assert set(kept["key"]) == {key}
    times = {p: (trained.root / p).stat().st_mtime_ns for p in kept["path"]}
    assert page_of(trained.root, pictures=True) == text
    assert {p: (trained.root / p).stat().st_mtime_ns for p in kept["path"]} == times


def test_truth_has_the_colours_of_its_labels(trained: Store) -> None:
    (key,) = load(trained.root).runs["key"].to_list()
    page_of(trained.root, pictures=True)
    data = open_dataset("shapes", options={"n_train": "8", "n_val": "4", "n_test": "5"})
    shown = [i for i in data.ids("test") if (trained.root / picture_path(key, "truth", i)).is_file()]
    assert len(shown) == 3
    for image_id in shown:
        with Image.open(trained.root / picture_path(key, "truth", image_id)) as picture:
            assert np.array_equal(np.asarray(picture), PALETTE[data.mask(image_id)])
        with Image.open(trained.root / picture_path(key, "image", image_id)) as picture:
            assert np.array_equal(np.asarray(picture), data.image(image_id))


def test_what_cannot_be_predicted_is_said(trained: Store) -> None:
    (key,) = load(trained.root).runs["key"].to_list()
    (problem,) = add_pictures(trained, key, {"cam": ["test/nowhere"]})
    assert "'test/nowhere' is not in test of shapes" in problem.found
    for path in trained.root.glob("cache/*/*.safetensors"):
        path.rename(path.with_suffix(".away"))
    (problem,) = add_pictures(trained, key, {"segmentation": ["test/000000"]})
    assert "weights are gone" in problem.found
