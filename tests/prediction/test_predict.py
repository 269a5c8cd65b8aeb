"""`python -m harness.predict`: what it writes is what scoring counted, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import harness.store
from harness import predict, train
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.datasets.io.colours import COLOURS
from harness.prediction.outputs import MARK, overlay
from harness.prediction.predictor import decided_at
from harness.scoring.confusion import image_counts

SMALL = {"n_train": "8", "n_val": "4", "n_test": "5"}
TRAIN = ["method=cam", "ray=off", *(f"data.{k}={v}" for k, v in SMALL.items()), "crop=48", "batch=4", "group=2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A store with one run of `cam`, and the five images that it was reported on as photos."""
    root = tmp_path_factory.mktemp("world")
    assert main(train.run, [*TRAIN, "iterations=2", f"store={root}/store"]) == 0
    dataset = open_dataset("shapes", options=SMALL)
    for n, image_id in enumerate(dataset.ids("test")):
        path = root / "photos" / ("deep" if n % 2 else "") / f"{image_id.replace('/', '~')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.image(image_id)).save(path)
    return root


def words(world: Path, out: Path, *more: str) -> list[str]:
    (key,) = set(harness.store.load(world / "store").runs["key"])
    return [f"run={key[:9]}", f"store={world}/store", f"images={world}/photos", f"out={out}", "threads=1", *more]


def masks(out: Path) -> dict[str, np.ndarray]:
    return {p.stem.replace("~", "/"): np.asarray(Image.open(p)) for p in (out / "masks").rglob("*.png")}


def refused(capsys, *argv: str) -> str:
    assert main(predict.run, list(argv)) == 2
    return capsys.readouterr().err


def tags_file(world: Path, path: Path, **changed: list[str]) -> Path:
    dataset = open_dataset("shapes", options=SMALL)
    named = {
        i.replace("/", "~"): [dataset.class_names[c + 1] for c in np.flatnonzero(dataset.tags(i))]
        for i in dataset.ids("test")
    }
    path.write_text(json.dumps({**named, **changed}))
    return path


@pytest.mark.parametrize("target", ["segmentation", "cam", "pseudo"])
def test_masks_are_what_scoring_counted(world, tmp_path, target):
    dataset, results = open_dataset("shapes", options=SMALL), harness.store.load(world / "store")
    known = [] if target == "segmentation" else [f"tags={tags_file(world, tmp_path / 'tags.json')}"]
    assert main(predict.run, words(world, tmp_path / "out", f"target={target}", *known)) == 0
    found = masks(tmp_path / "out")
    rule = "none" if target == "segmentation" else "held-out"
    row = results.evals.filter(
        pl.col("target") == target, pl.col("split") == "test", pl.col("threshold_rule") == rule,
        pl.col("weights") == "student",
    )  # fmt: skip
    counted = results.counts.filter(pl.col("eval") == row["eval"][0])
    assert set(found) == set(dataset.ids("test"))
    for image_id, mask in found.items():
        expected = np.zeros((dataset.num_labels, 3), np.int64)
        for c, *numbers in counted.filter(pl.col("image") == image_id).select("class", "tp", "fp", "fn").iter_rows():
            expected[c] = numbers
        assert (image_counts(mask, dataset.mask(image_id), dataset.num_labels) == expected).all(), image_id


def test_scales_flip_and_scores_are_those_of_scoring(world, tmp_path):
    out = tmp_path / "out"
    assert main(predict.run, words(world, out, "scales=1,1.5", "flip=mean", "probabilities=true")) == 0
    single, scored = tmp_path / "single", tmp_path / "scored"
    assert main(predict.run, words(world, single)) == 0
    assert main(predict.run, words(world, scored, "probabilities=true")) == 0
    for path in (out / "masks").rglob("*.png"):
        stored = np.load((out / "scores" / path.relative_to(out / "masks")).with_suffix(".npz"))
        probabilities_KHW = stored["probabilities"]
        assert probabilities_KHW.dtype == np.float16
        assert np.allclose(probabilities_KHW.sum(0), 1, atol=4e-3)
        top = probabilities_KHW.max(0)
        assert (probabilities_KHW[np.asarray(Image.open(path)), *np.indices(top.shape)] == top).all()
        one_scale = np.load((scored / "scores" / path.relative_to(out / "masks")).with_suffix(".npz"))
        assert not (one_scale["probabilities"] == probabilities_KHW).all(), "scales and flip are taken"
    assert not (single / "scores").exists()


def test_a_mask_has_vocs_palette_and_the_folder_says_what_is_what(world, tmp_path):
    out = tmp_path / "out"
    assert main(predict.run, words(world, out)) == 0
    path = next((out / "masks" / "deep").glob("*.png"))
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert tuple(picture.getpalette()[3:6]) == COLOURS[1]
        assert picture.info[MARK]
    photo = Image.open(world / "photos" / "deep" / path.name)
    over = Image.open(out / "overlays" / "deep" / f"{path.stem}.jpg")
    assert over.size == photo.size
    names = (out / "classes.txt").read_text().splitlines()
    assert tuple(names) == open_dataset("shapes").class_names


def test_tags_rule_out_all_other_classes(world, tmp_path):
    only = open_dataset("shapes").class_names[2]
    ids = [i.replace("/", "~") for i in open_dataset("shapes", options=SMALL).ids("test")]
    tags = tags_file(world, tmp_path / "tags.json", **{i: [only] for i in ids})
    assert main(predict.run, words(world, tmp_path / "out", f"tags={tags}", "probabilities=true")) == 0
    assert all(set(np.unique(mask)) <= {0, 2} for mask in masks(tmp_path / "out").values())
    scores = np.load(next((tmp_path / "out" / "scores").glob("*.npz")))["probabilities"]
    assert scores[[1, 3, 4]].max() == 0
    assert scores[0].max() > 0


def test_it_goes_on_image_by_image_with_equal_bytes(world, tmp_path, monkeypatch, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(predict.run, words(world, whole)) == 0
    from harness.prediction.predictor import Predictor

    asked, real = [], Predictor.predict

    def stopped(self, *args, **options):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    monkeypatch.setattr(Predictor, "predict", stopped)
    assert main(predict.run, words(world, cut)) == 130
    assert len(list((cut / "masks").rglob("*.png"))) == 2
    assert main(predict.run, words(world, cut)) == 0
    assert len(asked) == 3 + 3
    assert "3 predicted, 2 done before" in capsys.readouterr().out
    for path in whole.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (cut / path.relative_to(whole)).read_bytes(), path
    asked.clear()
    photo = sorted((world / "photos").glob("*.png"))[0]
    shutil.copy(photo, tmp_path / "before.png")
    try:
        Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(photo)
        assert main(predict.run, words(world, cut)) == 0
        assert len(asked) == 1, "a photo that has changed is predicted anew, the others are not"
        assert Image.open(cut / "masks" / photo.name).size == (7, 9)
    finally:
        shutil.copy(tmp_path / "before.png", photo)


def test_other_words_are_not_mixed_with_what_is_there(world, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(predict.run, words(world, out)) == 0
    before = masks(out)
    text = refused(capsys, *words(world, out, "scales=1,1.5"))
    assert "scales was 1, is 1,1.5" in text
    assert "again=true" in text
    tags = f"tags={tags_file(world, tmp_path / 'tags.json')}"
    assert "tags was none, is given" in refused(capsys, *words(world, out, tags))
    assert all((before[i] == mask).all() for i, mask in masks(out).items())
    assert main(predict.run, words(world, out, "probabilities=true")) == 0, "more files are no other masks"
    assert main(predict.run, words(world, out, "scales=1,1.5", "again=true")) == 0
    assert not (out / "scores").exists(), "what was made of other masks is gone"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert "holds files that are none of this command's" in refused(capsys, *words(world, tmp_path / "mine"))


def test_photos_that_cannot_be_read_are_named_and_the_rest_is_done(world, tmp_path, capsys):
    photos = Path(shutil.copytree(world / "photos", tmp_path / "photos"))
    (photos / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(photos / "deep16.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(photos / "scan.tif")
    Image.fromarray(np.full((5, 6), 90, np.uint8)).save(photos / "grey.png")
    Image.fromarray(np.full((5, 6, 4), 90, np.uint8)).save(photos / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((4, 8, 3), 90, np.uint8)).save(photos / "turned.jpg", exif=exif)
    argv = [w if not w.startswith("images=") else f"images={photos}" for w in words(world, tmp_path / "out")]
    assert main(predict.run, argv) == 1
    done = capsys.readouterr()
    for part in ("cut.jpg", "deep16.png: I;16 image", "scan.tif: a TIFF, neither JPEG nor PNG"):
        assert part in done.err
    assert "1 photos carry an orientation tag, which is not applied, as in training" in done.err
    assert "8 predicted" in done.out
    found = masks(tmp_path / "out")
    assert (found["grey"].shape, found["alpha"].shape, found["turned"].shape) == ((5, 6), (5, 6), (4, 8))
    assert main(predict.run, argv) == 1
    assert "0 predicted, 8 done before" in capsys.readouterr().out


def test_everything_wrong_is_said_at_once(world, tmp_path, capsys):
    photos = Path(shutil.copytree(world / "photos", tmp_path / "photos"))
    argv = [w if not w.startswith("images=") else f"images={photos}" for w in words(world, tmp_path / "out")]
    text = refused(capsys, *argv, "target=cam", "scales=1,2")
    assert "tags: is not given" in text
    assert "scales: is for segmenters" in text
    assert "threshold: is for CAMs" in refused(capsys, *argv, "threshold=.3")
    (tmp_path / "ids.txt").write_text("nobody\n")
    assert "1 of 1 ids have no photo" in refused(capsys, *argv, f"ids={tmp_path}/ids.txt")
    (tmp_path / "tags.json").write_text(json.dumps({next(photos.glob("*.png")).stem: []}))
    assert "says nothing of 4 of 5 photos" in refused(capsys, *argv, f"tags={tmp_path}/tags.json")
    shutil.copy(next(photos.glob("*.png")), next(photos.glob("*.png")).with_suffix(".jpg"))
    assert "1 names stand for two files" in refused(capsys, *argv)
    (tmp_path / "none").mkdir()
    argv = [w if not w.startswith("images=") else f"images={tmp_path}/none" for w in argv]
    assert "holds no images" in refused(capsys, *argv)


def test_a_run_that_kept_no_weights_says_which_word_would(world, tmp_path, capsys):
    store = tmp_path / "store"
    assert main(train.run, [*TRAIN, "iterations=1", "keep=none", f"store={store}"]) == 0
    (key,) = harness.store.load(store).runs["key"]
    text = refused(capsys, f"run={key}", f"store={store}", f"images={world}/photos", f"out={tmp_path}/out")
    assert "left no weights (keep=none)" in text
    assert "keep=last" in text


def test_ids_choose_photos_in_their_order(world, tmp_path):
    names = sorted(p.stem for p in (world / "photos").rglob("*.png"))[:2]
    (tmp_path / "ids.txt").write_text("\n".join(names) + "\n")
    assert main(predict.run, words(world, tmp_path / "out", f"ids={tmp_path}/ids.txt")) == 0
    assert len(masks(tmp_path / "out")) == 2


def test_a_file_of_weights_predicts_as_its_run(world, tmp_path, capsys):
    assert main(predict.run, words(world, tmp_path / "run")) == 0
    (path,) = harness.store.load(world / "store").artifacts.filter(pl.col("kind") == "weights")["path"]
    argv = [f"weights={world}/store/{path}", "method=cam", "crop=48", f"images={world}/photos"]
    assert main(predict.run, [*argv, f"out={tmp_path}/file"]) == 0
    own = masks(tmp_path / "run")
    assert all((own[i] == mask).all() for i, mask in masks(tmp_path / "file").items())
    (tmp_path / "names.txt").write_text("background\ncat\ndog\n")
    labels = len(open_dataset("shapes").class_names)
    text = refused(capsys, *argv, f"out={tmp_path}/x", f"data.classes={tmp_path}/names.txt")
    assert f"weights: are of {labels} labels, and here are 3" in text
    text = refused(capsys, *argv, f"out={tmp_path}/x", "data=voc", "backbone=shapes_vit", "decoder=deeplabv3plus")
    assert f"weights: are of {labels} labels, and here are 21" in text
    assert "data.classes" in refused(capsys, *argv, f"out={tmp_path}/x", "data=folder")


def test_large_photos_are_decided_strip_by_strip_as_whole():
    scores_Khw = torch.randn(4, 9, 13, generator=torch.Generator().manual_seed(0))
    scores_Khw[2] = -torch.inf
    size = (700, 31)
    whole = torch.nn.functional.interpolate(scores_Khw[[0, 1, 3]][None], size, mode="bilinear")[0].argmax(0)
    found = decided_at(scores_Khw, size)
    assert (np.array([0, 1, 3])[whole.numpy()] == found).mean() > 0.9995
    assert 2 not in found


def test_photos_beyond_the_limit_have_masks_of_their_own_size(world, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.prediction.predictor.PIXELS", 300)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)).save(tmp_path / "photos/a.png")
    argv = [w if not w.startswith("images=") else f"images={tmp_path}/photos" for w in words(world, tmp_path / "out")]
    assert main(predict.run, [*argv, "scales=original", "probabilities=true"]) == 0
    assert masks(tmp_path / "out")["a"].shape == (60, 90)
    assert np.load(tmp_path / "out/scores/a.npz")["probabilities"].shape[1:] == (14, 21)


def test_overlays_show_the_photo_under_its_labels():
    image_HW3 = np.full((5, 6, 3), 100, np.uint8)
    labels_HW = np.zeros((5, 6), np.uint8)
    labels_HW[:, 2:] = 1
    picture = overlay(image_HW3, labels_HW, has_background=True)
    assert (picture[:, :2] == 100).all(), "background is the photo"
    assert (picture[2, 2] == COLOURS[1]).all(), "the border is the colour itself"
    assert (picture[2, 4] == np.rint((100 + np.array(COLOURS[1])) / 2)).all()
    assert (overlay(image_HW3, labels_HW, has_background=False)[2, 0] == 50).all(), "without background all is shaded"
