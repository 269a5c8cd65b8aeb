"""Pictures of what a stage wrote: read where a run kept its files, made again of these images where it did not."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import train
from harness.api.vocabulary import IGNORE
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.datasets.io.colours import PALETTE
from harness.datasets.io.image_files import decided, read
from harness.evaluation.picture_files import picture_path
from harness.evaluation.pictures import FAINT, add_pictures
from harness.store import Store, load

OPTIONS = {"n_train": "8", "n_val": "3", "n_test": "4"}
IDS = ["test/000000", "test/000002"]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A run of two networks, of which the second learns from maps that a stage wrote; its CAMs are these maps."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "engine" / "stages")
    store = Store(tmp_path / "store")
    words = ["method=twostage", "ray=off", *(f"data.{k}={v}" for k, v in OPTIONS.items()), "threads=1"]
    with importlib.import_module("recipe_toys").registered():
        assert main(train.run, [*words, f"store={store.root}"]) == 0
        yield store


def key_of(store: Store) -> str:
    (key,) = load(store.root).runs["key"].to_list()
    return str(key)


def kept(store: Store) -> Path:
    (path,) = load(store.root).artifacts.filter(kind="maps-cams")["path"]
    return store.root / str(path)


def drawn(store: Store) -> list[bytes]:
    """The pictures of the CAMs, made now."""
    key = key_of(store)
    paths = [store.root / picture_path(key, "cam", i) for i in IDS]
    for path in paths:
        path.unlink(missing_ok=True)
    assert add_pictures(store, key, {"cam": IDS}) == []
    return [path.read_bytes() for path in paths]


def test_they_show_the_files_that_the_run_kept(trained: Store) -> None:
    drawn(trained)
    data = open_dataset("shapes", options=OPTIONS)
    for image_id in IDS:
        image_HW3, size = data.image(image_id), data.size(image_id)
        score_HW, cls_HW = decided(read(kept(trained), image_id), "cam", size)
        # Pixels that are not scored are paler.
        y, x = np.unravel_index(int(np.where(data.mask(image_id) == IGNORE, -1, score_HW).argmax()), size)
        share = (1 - FAINT) * score_HW[y, x]
        colour_3 = image_HW3[y, x].mean() * (1 - share) + PALETTE[cls_HW[y, x] + 1] * share
        with Image.open(trained.root / picture_path(key_of(trained), "cam", image_id)) as picture:
            assert np.abs(np.asarray(picture)[y, x] - colour_3).max() <= 1.0


def test_without_the_files_the_kept_network_writes_the_same_maps_again(trained: Store) -> None:
    first = drawn(trained)
    shutil.rmtree(kept(trained))
    assert drawn(trained) == first
    assert not kept(trained).exists(), "the store holds what its runs left, and pictures"


def test_without_the_network_too_it_is_said(trained: Store) -> None:
    shutil.rmtree(kept(trained))
    for path in trained.root.glob("cache/*/*.safetensors"):
        path.unlink()
    (problem,) = add_pictures(trained, key_of(trained), {"cam": IDS})
    assert "weights are gone" in problem.found
    assert problem.where == "run"
