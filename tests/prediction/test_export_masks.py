"""`harness.store export-masks`: what a stage left, or what the network says, as a folder that is trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import harness.store
from harness import train
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.datasets.io.image_files import labels_at, read
from harness.store.__main__ import run as store_run

OPTIONS = {"n_train": "8", "n_val": "4", "n_test": "4"}
WORDS = ["ray=off", *(f"data.{k}={v}" for k, v in OPTIONS.items()), "crop=48", "batch=4", "group=2", "iterations=2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A run of `cam` with its maps of all images, in a store of its own."""
    root = tmp_path_factory.mktemp("export")
    assert main(train.run, ["method=cam", *WORDS, "keep=last,maps", f"store={root}/store"]) == 0
    return root


def key_of(store: Path) -> str:
    (key,) = set(harness.store.load(store).runs["key"])
    return key


def masks(out: Path) -> dict[str, np.ndarray]:
    return {p.stem: np.asarray(Image.open(p)) for p in sorted((out / "SegmentationClass").glob("*.png"))}


def export(store: Path, out: Path, *more: str) -> int:
    return main(store_run, ["export-masks", f"run={key_of(store)}", f"store={store}", f"out={out}", *more])


def test_masks_of_training_images_are_the_stages_maps_cut_at_the_runs_threshold(world, tmp_path, capsys):
    out, dataset, results = (
        tmp_path / "out",
        open_dataset("shapes", options=OPTIONS),
        harness.store.load(world / "store"),
    )
    assert export(world / "store", out) == 0
    assert "pseudo of cam on train, 8 images, of its stage's files" in capsys.readouterr().out
    rule = (pl.col("target") == "pseudo") & (pl.col("threshold_rule") == "held-out") & (pl.col("weights") == "student")
    threshold = float(results.evals.filter(rule)["threshold"][0])
    (path,) = results.artifacts.filter(pl.col("kind") == "maps-score-maps")["path"]
    found = masks(out)
    assert len(found) == 8
    for image_id in dataset.ids("train"):
        maps = read(world / "store" / path, image_id)
        expected = labels_at(maps, "pseudo", dataset.size(image_id), threshold, True)
        assert (found[image_id.replace("/", "~")] == expected).all()
    assert export(world / "store", out) == 0
    assert "0 masks made, 8 done before" in capsys.readouterr().out


def test_the_network_makes_them_where_no_files_were_kept(world, tmp_path, capsys):
    store = Path(shutil.copytree(world / "store", tmp_path / "store"))
    assert main(store_run, ["gc", f"store={store}", "keep=last"]) == 0
    capsys.readouterr()
    assert export(store, tmp_path / "network") == 0
    assert "predicted with the images' tags" in capsys.readouterr().out
    assert export(world / "store", tmp_path / "files") == 0
    one, other = masks(tmp_path / "network"), masks(tmp_path / "files")
    # Files hold half precision of a batch; the network is asked image by image.
    assert one.keys() == other.keys()
    assert np.mean([(one[i] == other[i]).mean() for i in one]) > 0.999
    assert main(store_run, ["gc", f"store={store}", "keep=none"]) == 0
    capsys.readouterr()
    assert export(store, tmp_path / "none") == 2
    assert "keep=last" in capsys.readouterr().err


def test_the_folder_is_voc_layout_that_is_trained_on(world, tmp_path):
    out, dataset = tmp_path / "out", open_dataset("shapes", options=OPTIONS)
    assert export(world / "store", out) == 0
    names = (out / "classes.txt").read_text().splitlines()
    assert tuple(names) == dataset.class_names
    listed = (out / "ImageSets/Segmentation/train.txt").read_text().splitlines()
    assert listed == [i.replace("/", "~") for i in dataset.ids("train")]
    assert sorted(p.stem for p in (out / "JPEGImages").iterdir()) == sorted(listed)
    assert export(world / "store", tmp_path / "val", "split=val", "target=segmentation") == 0
    for folder in ("JPEGImages", "SegmentationClass"):
        shutil.copytree(tmp_path / "val" / folder, out / folder, dirs_exist_ok=True)
    shutil.copy(tmp_path / "val/ImageSets/Segmentation/val.txt", out / "ImageSets/Segmentation/val.txt")
    folder = open_dataset("folder", root=str(out))
    first = dataset.ids("train")[0]
    assert (folder.image(first.replace("/", "~")) == dataset.image(first)).all()
    assert (folder.mask(first.replace("/", "~")) == masks(out)[first.replace("/", "~")]).all()


def test_other_words_on_the_same_folder_are_refused(world, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(world / "store", out, "images=off") == 0
    assert not (out / "JPEGImages").exists()
    assert export(world / "store", out, "threshold=0.9") == 2
    assert "threshold was" in capsys.readouterr().err
    assert export(world / "store", out, "threshold=0.9", "again=true") == 0
    assert "8 masks made" in capsys.readouterr().out
    assert export(world / "store", tmp_path / "x", "target=pseudo", "split=val", "data.root=/none") == 2


def test_a_run_that_has_masks_of_its_own_alone_gives_its_segmentation(tmp_path, capsys):
    assert main(train.run, ["method=full", *WORDS, f"store={tmp_path}/store"]) == 0
    assert export(tmp_path / "store", tmp_path / "out") == 0
    assert "segmentation of full on train" in capsys.readouterr().out
    assert len(masks(tmp_path / "out")) == 8


def test_full_trains_on_the_exported_masks(tmp_path, capsys):
    """A folder of photos with tags, `cam` on it, its pseudo masks, and `full` on these in place of the masks."""
    root, rng = tmp_path / "voc", np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("background\ndisc\nbar\n")
    for split, ids in {"train": "abcdef", "val": "gh", "test": "ij"}.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
        for n, name in enumerate(ids):
            mask = np.zeros((40, 52), np.uint8)
            mask[8:30, 10:34] = 1 + n % 2
            Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")
            pixels = rng.integers(0, 255, (40, 52, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg")
    data = ["data=folder", f"data.root={root}", "tier=smoke", "backbone=shapes_vit", "decoder=deeplabv3plus"]
    sizes = ["ray=off", "crop=48", "batch=2", "group=2", "iterations=2"]
    assert main(train.run, ["method=cam", *data, *sizes, f"store={tmp_path}/store"]) == 0
    out = tmp_path / "exported"
    assert export(tmp_path / "store", out, "threshold=0.3") == 0
    found = masks(out)
    assert sorted(found) == list("abcdef")
    assert sorted(p.name for p in (out / "JPEGImages").iterdir()) == [f"{i}.jpg" for i in "abcdef"]
    assert (out / "JPEGImages/a.jpg").read_bytes() == (root / "JPEGImages/a.jpg").read_bytes()
    pseudo = [f"data.pseudo={out}/SegmentationClass", "labels=pseudo"]
    assert main(train.run, ["method=full", *data, *sizes, *pseudo, f"store={tmp_path}/second"]) == 0
    row = harness.store.load(tmp_path / "second").runs.row(0, named=True)
    assert (row["status"], row["supervision"]) == ("done", "pseudo")
    labels = open_dataset("folder", root=str(root), options={"pseudo": f"{out}/SegmentationClass"})
    assert all((labels.weak(i, "pseudo") == found[i]).all() for i in found)
