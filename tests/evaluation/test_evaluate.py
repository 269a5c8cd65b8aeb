"""`python -m harness.evaluate`: masks, CAMs, runs and weights, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

import harness.store
from harness import evaluate
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.scoring.metrics import miou
from reports.sections.leaderboard import build

IDS = {"train": "abcdefgh", "val": "ijkl", "test": "mnopqr"}
REAL = os.environ.get("WSSS_REAL_DATA")
NAMES = ("background", "disc", "bar")


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """A folder in VOC layout: two classes, sizes that differ, some pixels ignored."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    for split, ids in IDS.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
        for n, i in enumerate(ids):
            rng = np.random.default_rng(ord(i))
            mask = np.zeros((30 + ord(i) % 7, 44), np.uint8)
            mask[5:20, 4:18] = 1 + n % 2
            mask[22:28, 20:40] = 1
            mask[:2] = 255
            Image.fromarray(rng.integers(0, 255, (*mask.shape, 3), dtype=np.uint8)).save(root / f"JPEGImages/{i}.jpg")
            Image.fromarray(mask).save(root / f"SegmentationClass/{i}.png")
    return root


def data_of(root: Path, **words: str) -> list[str]:
    return [f"data.root={root}", "data=folder", *(f"data.{k}={v}" for k, v in words.items())]


def thresholded(image: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """What a simple CAM program makes of a photo: smooth bumps, arg max, one threshold, a few pixels left open."""
    rng = np.random.default_rng(seed)
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w]
    bumps = [
        np.exp(-(((y - h * rng.random()) / (0.3 * h)) ** 2) - ((x - w * rng.random()) / (0.3 * w)) ** 2)
        for _ in range(labels - 1)
    ]
    score = np.stack(bumps) * (0.6 + 0.4 * image.mean(-1) / 255)
    pred = np.where(score.max(0) > 0.45, score.argmax(0) + 1, 0).astype(np.uint8)
    pred[rng.random((h, w)) < 0.01] = 255
    return pred


def write_masks(folder: Path, dataset, split: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Palette PNGs for every second image, grey ones for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for n, i in enumerate(dataset.ids(split)):
        out[i] = thresholded(dataset.image(i), dataset.num_labels, seed + n)
        picture = Image.fromarray(out[i])
        if n % 2:
            picture.putpalette(list(range(256)) * 3)
        picture.save(folder / f"{i}.png")
    return out


def sklearn_counts(dataset, preds: dict[str, np.ndarray]) -> np.ndarray:
    """tp, fp, fn by class from scikit-learn's matrix; 255 in a prediction is a column of its own that nobody wins."""
    labels = [*range(dataset.num_labels), 255]
    total = np.zeros((len(labels), len(labels)), np.int64)
    for i, pred in preds.items():
        truth = dataset.mask(i)
        kept = truth != 255
        total += confusion_matrix(truth[kept], pred[kept], labels=labels)
    tp = np.diagonal(total)
    return np.stack([tp, total.sum(0) - tp, total.sum(1) - tp], 1)[:-1]


def assert_equal_to_sklearn(store: Path, dataset, preds: dict[str, np.ndarray]) -> None:
    counts = harness.store.load(store).counts
    found = counts.group_by("class").agg(pl.col("tp", "fp", "fn").sum()).sort("class")
    expected = sklearn_counts(dataset, preds)
    for c, tp, fp, fn in found.iter_rows():
        assert [tp, fp, fn] == expected[c].tolist(), c
    assert expected.sum() == found.select(pl.sum_horizontal("tp", "fp", "fn").sum()).item()


def test_masks_of_another_program_equal_scikit_learn(voc, tmp_path, capsys):
    dataset = open_dataset("folder", root=str(voc))
    preds = write_masks(tmp_path / "masks", dataset, "test")
    store = tmp_path / "store"
    words = [f"preds={tmp_path}/masks", "name=Mine", f"store={store}", *data_of(voc)]
    assert main(evaluate.run, words) == 0
    assert_equal_to_sklearn(store, dataset, preds)
    results = harness.store.load(store)
    assert results.evals.height == 1
    row = results.evals.row(0, named=True)
    assert (row["target"], row["split"], row["tags"], row["threshold_rule"]) == ("segmentation", "test", "none", "none")
    text = capsys.readouterr().out
    assert f"mIoU {100 * miou(results.counts)[0]:.1f} [" in text
    assert all(name in text for name in NAMES)
    board = build(results)
    assert "hours leave out" not in board.render("markdown")
    assert board.boards[0].group.head.method == "Mine"
    assert board.per_class().height == 3


@pytest.mark.skipif(not REAL, reason="WSSS_REAL_DATA is not set")
@pytest.mark.parametrize(("folder", "masks"), [("msrc21", "SegmentationClassObj"), ("pets3", "SegmentationClass")])
def test_masks_of_photos_equal_scikit_learn(folder, masks, tmp_path):
    root = Path(str(REAL)) / folder
    dataset = open_dataset("folder", root=str(root), masks=masks)
    split = "test" if dataset.splits().get("test") else "val"
    preds = write_masks(tmp_path / "masks", dataset, split)
    words = [f"preds={tmp_path}/masks", "name=Mine", f"store={tmp_path}/s", *data_of(root, masks=masks)]
    assert main(evaluate.run, words) == 0
    assert_equal_to_sklearn(tmp_path / "s", dataset, preds)


def test_everything_wrong_with_masks_is_named_at_once(voc, tmp_path, capsys):
    dataset = open_dataset("folder", root=str(voc))
    masks, store = tmp_path / "masks", tmp_path / "store"
    write_masks(masks, dataset, "test")
    Image.fromarray(np.zeros((30, 44, 3), np.uint8)).save(masks / "m.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "n.png")
    Image.fromarray(np.full(dataset.mask("o").shape, 7, np.uint8)).save(masks / "o.png")
    words = [f"preds={masks}", "name=Mine", f"store={store}", *data_of(voc)]
    assert main(evaluate.run, words) == 2
    text = capsys.readouterr().err
    assert "m.png: RGB mask" in text
    assert "n.png: 9x9 pixels" in text
    assert "o.png: holds label 7" in text
    (masks / "p.png").unlink()
    (masks / "q.png").unlink()
    assert main(evaluate.run, words) == 2
    assert "has no file for 2 images: p, q" in capsys.readouterr().err
    assert not (store / "evals").exists()


def test_one_name_stands_for_one_result(voc, tmp_path, capsys):
    dataset = open_dataset("folder", root=str(voc))
    store = tmp_path / "store"
    for seed in (0, 1):
        write_masks(tmp_path / f"masks{seed}", dataset, "test", seed=10 * seed)
    words = ["name=Mine", f"store={store}", *data_of(voc)]
    first = [f"preds={tmp_path}/masks0", *words]
    assert main(evaluate.run, first) == 0
    before = {p: p.read_bytes() for p in store.rglob("*.parquet")}
    capsys.readouterr()
    assert main(evaluate.run, first) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(evaluate.run, [f"preds={tmp_path}/masks1", *words]) == 2
    assert "stands for other results on test" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in store.rglob("*.parquet")} == before
    assert main(evaluate.run, [f"preds={tmp_path}/masks1", *words, "seed=1"]) == 0
    assert main(evaluate.run, [f"preds={tmp_path}/masks0", "name=Other", *words[1:]]) == 0
    text = capsys.readouterr().out
    assert "Beside other rows of the store" in text
    rows = {r.method: r.seeds for b in build(harness.store.load(store)).boards for r in b.group.rows}
    assert rows == {"Mine": (0, 1), "Other": (0,)}


def write_cams(folder: Path, dataset, splits=("test",)) -> dict[str, np.ndarray]:
    """All C maps of an image: npz of some classes for every second image, npy of all for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for split in splits:
        for n, i in enumerate(dataset.ids(split)):
            rng = np.random.default_rng(ord(i[-1]) + 5)
            maps = rng.random((dataset.num_classes, *dataset.mask(i).shape)).astype(np.float32)
            out[i] = maps
            if n % 2:
                np.save(folder / f"{i}.npy", maps)
            else:
                order = np.arange(dataset.num_classes)[::-1].astype(np.int16)
                np.savez(folder / f"{i}.npz", classes=order, cam=maps[order])
    return out


def loop_counts(dataset, cams: dict[str, np.ndarray], threshold: float) -> np.ndarray:
    """The field's loop: absent classes zeroed by the true tags, background where the score is at most the threshold."""
    preds = {}
    for i, maps in cams.items():
        score = maps * dataset.tags(i)[:, None, None]
        preds[i] = np.where(score.max(0) <= np.float32(threshold), 0, score.argmax(0) + 1).astype(np.uint8)
    return sklearn_counts(dataset, preds)


@pytest.mark.parametrize("rule", ["oracle", "fixed", "held-out"])
def test_cams_of_another_program_equal_the_loop_over_thresholds(rule, voc, tmp_path):
    dataset = open_dataset("folder", root=str(voc))
    cams = write_cams(tmp_path / "cams", dataset, ("test", "val"))
    store = tmp_path / "store"
    words = [f"cams={tmp_path}/cams", "name=Mine", f"store={store}", *data_of(voc), f"protocol={rule}"]
    assert main(evaluate.run, words) == 0
    results = harness.store.load(store)
    (row,) = results.evals.to_dicts()
    assert (row["target"], row["tags"], row["threshold_rule"]) == ("cam", "truth", rule)
    test = {i: cams[i] for i in dataset.ids("test")}
    for threshold in (0.0, 0.37, 0.99):
        at = results.curves.filter(pl.col("threshold") == threshold).sort("class")
        expected = loop_counts(dataset, test, threshold)
        assert at.select("tp", "fp", "fn").to_numpy().tolist() == expected[at["class"].to_numpy()].tolist()
    chosen = results.counts.group_by("class").agg(pl.col("tp", "fp", "fn").sum()).sort("class")
    expected = loop_counts(dataset, test, row["threshold"])
    assert chosen.select("tp", "fp", "fn").to_numpy().tolist() == expected.tolist()
    tuned = {i: cams[i] for i in dataset.ids("val" if rule == "held-out" else "test")}

    def score(t: float) -> float:
        tp, fp, fn = loop_counts(dataset, tuned, t).T
        return float((tp / (tp + fp + fn)).mean())

    if rule == "fixed":
        assert row["threshold"] == 0.5
    else:
        grid = np.arange(100) / 100
        assert row["threshold"] == grid[int(np.argmax([score(t) for t in grid]))]
    assert build(results).boards[0].group.head.protocol == rule


def test_the_rule_is_held_out_where_the_folder_has_the_tuning_split(voc, tmp_path, capsys):
    dataset = open_dataset("folder", root=str(voc))
    write_cams(tmp_path / "some", dataset)
    words = ["name=Mine", f"store={tmp_path}/s", *data_of(voc), "dry_run=true"]
    assert main(evaluate.run, [f"cams={tmp_path}/some", *words]) == 0
    caught = capsys.readouterr()
    assert "oracle threshold" in caught.out
    assert "no CAMs of the tuning split" in caught.err
    assert main(evaluate.run, [f"cams={tmp_path}/some", *words, "protocol=held-out"]) == 2
    assert "has no file for 4 images: i, j, k, l" in capsys.readouterr().err
    write_cams(tmp_path / "all", dataset, ("val", "test"))
    assert main(evaluate.run, [f"cams={tmp_path}/all", *words]) == 0
    assert "held-out threshold" in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


def test_what_is_wrong_with_cams(voc, tmp_path, capsys):
    dataset = open_dataset("folder", root=str(voc))
    cams = tmp_path / "cams"
    write_cams(cams, dataset)
    np.savez(cams / "m.npz", classes=np.array([0, 2]), cam=np.zeros((2, 4, 4)))
    np.save(cams / "n.npy", np.full((2, 4, 4), 1.5))
    np.savez(cams / "o.npz", classes=np.array([0]), cam=np.zeros((2, 4, 4)))
    np.save(cams / "p.npy", np.array({"keys": 1}, dtype=object), allow_pickle=True)
    np.savez(cams / "q.npz", cam=np.zeros((2, 4, 4)))
    assert main(evaluate.run, [f"cams={cams}", "name=Mine", f"store={tmp_path}/s", *data_of(voc)]) == 2
    text = capsys.readouterr().err
    assert "m.npz: class 2; known are 0..1" in text
    assert "n.npy: maps are empty, not finite, or outside [0,1]" in text
    assert "o.npz: maps of shape (2, 4, 4)" in text
    assert "p.npy: holds pickled objects" in text
    assert "import-cams" in text
    assert "q.npz: cannot be read" in text


def test_words_that_do_not_go_together(voc, tmp_path, capsys):
    def refused(*words: str) -> str:
        assert main(evaluate.run, [*words, f"store={tmp_path}/s"]) == 2
        return capsys.readouterr().err

    assert "none of run, weights, preds, cams" in refused()
    assert "preds, cams are given together" in refused("preds=a", "cams=b")
    text = refused("preds=nowhere", "scales=1,2", "method=fsr", "target=cam", "labels=tagz", "batch=3")
    assert "word 'batch'" in text
    text = refused("preds=nowhere", "scales=1,2", "method=fsr", "target=cam", "labels=tagz")
    for part in (
        "scales: does not go with preds=",
        "method: does not go",
        "target: cam cannot",
        "'tagz'",
        "name: is n",
    ):
        assert part in text, part
    text = refused("preds=nowhere", "name=fsr", *data_of(voc))
    assert "fsr is a method of this harness" in text
    assert "nowhere is no folder" in text
    assert "harness.evaluate run=" not in text
    assert not (tmp_path / "s").exists()


def test_help_names_every_word(capsys):
    assert main(evaluate.run, ["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("run=", "weights=", "preds=", "cams=", "name=", "target=", "scales=", "crf=", "split=", "protocol="):
        assert f"  {word}" in text
    assert "batch=" not in text
    assert "  keep=" not in text
