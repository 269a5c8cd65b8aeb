"""Other programs' label maps as a whole: another numbering, 255 for background, files of other images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import evaluate
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.datasets.disk.files import FileDataset
from harness.datasets.tools.fitting_labels import judge_labels, pairs_of
from harness.scoring.confusion import confusion_and_missed
from harness.store import load

Maker = Callable[..., Path]
NAMES = ("background", "cat", "dog", "owl")


@pytest.fixture
def dataset(voc_folder: Maker) -> FileDataset:
    """Masks drawn over: image n shows classes 1 + n % 3 and 1 + (n + 1) % 3 on half of its pixels."""
    root = voc_folder(classes=NAMES, lists={"train": [f"a{i}" for i in range(12)], "test": [f"t{i}" for i in range(6)]})
    for folder, n in (("a", 12), ("t", 6)):
        for i in range(n):
            path = root / f"SegmentationClass/{folder}{i}.png"
            mask = np.zeros(np.asarray(Image.open(path)).shape, np.uint8)
            half = mask.shape[0] // 2
            mask[:half] = 1 + i % 3
            mask[: half // 2] = 1 + (i + 1) % 3
            Image.fromarray(mask).save(path)
    found = open_dataset("folder", root=str(root))
    assert isinstance(found, FileDataset)
    return found


def judged(dataset: FileDataset, change: Callable[[np.ndarray], np.ndarray]) -> tuple[list[str], list[str]]:
    """What is said of predictions that are the masks, changed."""
    files = {}
    for image_id in dataset.ids("test"):
        predicted = np.asarray(change(dataset.mask(image_id).astype(np.int64)), np.uint8)
        files[image_id] = pairs_of(*confusion_and_missed(predicted, dataset.mask(image_id), dataset.num_labels))
    errors, warnings = judge_labels(dataset, files, "folder")
    return [p.found for p in errors], [p.found for p in warnings]


def test_pairs_are_the_confusion_matrix_with_what_was_missed() -> None:
    true, predicted = np.array([[0, 1, 1, 255]], np.uint8), np.array([[0, 2, 255, 1]], np.uint8)
    assert pairs_of(*confusion_and_missed(predicted, true, 3)).tolist() == [[0, 0, 1], [1, 2, 1], [1, 255, 1]]


def test_good_and_bad_predictions_pass(dataset: FileDataset) -> None:
    rng = np.random.default_rng(0)
    for change in (
        lambda m: m,
        lambda m: np.where(rng.random(m.shape) < 0.6, 0, m),  # most is missed
        lambda m: np.where(m == 3, 2, m),  # one class is always taken for another
        lambda m: np.where(rng.random(m.shape) < 0.3, 255, m),
        lambda m: np.where(m == 0, 1 + np.arange(m.size).reshape(m.shape) % 3, m),  # no background is found
    ):
        assert judged(dataset, change) == ([], [])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda m: np.where(m == 0, 255, m - 1),
            "labels fit the masks with one more: 100 % of the pixels of classes, ",
        ),
        (
            lambda m: np.where(m == 3, 255, m + 1),
            "labels fit the masks with one less: 100 % of the pixels of classes, ",
        ),
        (lambda m: np.where(m > 0, 255, 0), "no class in any of 6 files: they hold 0 and 255 alone"),
        (lambda m: m * 0 + 255, "no class in any of 6 files: they hold 255 alone"),
    ],
)
def test_another_numbering_is_an_error(dataset: FileDataset, change: Callable, told: str) -> None:
    (error,), warnings = judged(dataset, change)
    assert error.startswith(told)
    assert not warnings


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m * 0, "all pixels of all 6 files are background: no class is predicted"),
        (lambda m: np.where(m == 0, 255, m), "background (0) is in no file, and 255 lies on 100 % of it"),
        (
            lambda m: np.array([0, 2, 3, 1])[m],
            "3 of 3 classes are predicted as another one (cat as dog, dog as owl, owl as cat)",
        ),
        (
            lambda m: np.where(m == 1, 2, np.where(m == 2, 1, m)),
            "2 of 3 classes are predicted as another one (cat as dog",
        ),
    ],
)
def test_what_may_be_meant_is_a_warning(dataset: FileDataset, change: Callable, told: str) -> None:
    errors, (warning,) = judged(dataset, change)
    assert warning.startswith(told)
    assert not errors


def test_files_of_other_images_are_a_warning(dataset: FileDataset) -> None:
    ids = dataset.ids("test")
    files = {}
    for image_id, other in zip(ids, (*ids[1:], ids[0]), strict=True):
        predicted = np.where(dataset.mask(other) == 1 + (ids.index(other) + 1) % 3, dataset.mask(other), 0)
        files[image_id] = pairs_of(*confusion_and_missed(predicted, dataset.mask(image_id), dataset.num_labels))
    errors, (warning,) = judge_labels(dataset, files, "folder")
    # Image n + 1 shows class 1 + (n + 2) % 3 alone here, which image n never does.
    assert warning.found == "100 % of the predicted pixels of classes are of classes that the image lacks"
    assert not errors


def test_the_command_refuses_or_warns_and_scores(
    dataset: FileDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "s"
    words = [f"store={store}", "data=folder", f"data.root={dataset.layout.root}", f"preds={tmp_path}"]
    for image_id in dataset.ids("test"):
        mask = dataset.mask(image_id)
        Image.fromarray(np.where(mask == 0, 255, mask - 1).astype(np.uint8)).save(tmp_path / f"{image_id}.png")
    assert main(evaluate.run, [*words, "name=Mine"]) == 2
    assert "labels fit the masks with one more" in capsys.readouterr().err
    assert load(store).evals.height == 0
    for image_id in dataset.ids("test"):
        mask = dataset.mask(image_id)
        # Written by Windows: the ending is read in upper case too.
        (tmp_path / f"{image_id}.png").unlink()
        Image.fromarray(np.array([0, 2, 3, 1], np.uint8)[mask]).save(tmp_path / f"{image_id}.PNG")
    assert main(evaluate.run, [*words, "name=Mine"]) == 0
    assert "3 of 3 classes are predicted as another one" in capsys.readouterr().err
    counts = load(store).counts.group_by("class").agg(tp="tp").sort("class")
    assert [sum(tp) for tp in counts["tp"]][1:] == [0, 0, 0]
    assert main(evaluate.run, [*words, "name= "]) == 2
    assert "name: is not given" in capsys.readouterr().err
