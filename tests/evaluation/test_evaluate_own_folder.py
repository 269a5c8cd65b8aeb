"""A run on a user's own folder is scored again: nobody but its name says `folder:<name>`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import harness.store
from harness import evaluate, train
from harness.cli.parsing import main


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets3"
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split, names in {"train": "abcd", "val": "ef", "test": "gh"}.items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(root / f"JPEGImages/{name}.jpg")
            mask = np.zeros((40, 50), np.uint8)
            mask[10:30, 10:30] = 1
            Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")
    (root / "classes.txt").write_text("background\nblob\n")
    return root


def test_a_run_on_an_own_folder_is_scored_again(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"store={tmp_path / 'store'}"
    size = ["iterations=2", "crop=48", "batch=4", "group=2", "tier=lab", "backbone=shapes_vit"]
    assert main(train.run, ["method=full", "ray=off", "data=folder", f"data.root={pets}", store, *size]) == 0
    before = harness.store.load(tmp_path / "store")
    (key,) = before.runs["key"]
    assert before.runs["dataset"].to_list() == ["folder:pets3"]
    capsys.readouterr()
    assert main(evaluate.run, [f"run={key}", "scales=1,1.5", store]) == 0, capsys.readouterr().err
    after = harness.store.load(tmp_path / "store").evals
    assert after.height == before.evals.height + 1
    assert "folder:pets3" in capsys.readouterr().out
    moved = pets.rename(tmp_path / "moved")
    assert main(evaluate.run, [f"run={key}", "scales=1,2", store, f"data.root={moved}"]) == 0, capsys.readouterr().err
