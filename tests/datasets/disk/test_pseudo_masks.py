"""`data.pseudo`: a folder of anybody's pseudo masks, read whole and judged before anything is trained."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.api.vocabulary import IGNORE
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.datasets.io.colours import COLOURS
from harness.datasets.tools.checking import check, survey
from harness.errors import BadInput
from harness.sweep import run

Maker = Callable[..., Path]


def pseudo(root: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray] = lambda mask: mask) -> Path:
    """Palette PNGs of the training masks, a corner of each unlabelled, `change`d."""
    dataset = open_dataset("folder", root=str(root))
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in dataset.ids("train"):
        mask = dataset.mask(image_id).copy()
        mask[:4, :4] = IGNORE
        image = Image.fromarray(change(mask).astype(np.uint8))
        image.putpalette([v for colour in COLOURS for v in colour])
        image.save(folder / f"{image_id}.png")
    return folder


def opened(root: Path, folder: Path, **options: str):
    return open_dataset("folder", root=str(root), options={"pseudo": str(folder), **options})


def test_masks_are_read_and_their_content_is_the_fingerprint(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    dataset = opened(root, pseudo(root, tmp_path / "a"))
    train = dataset.ids("train")
    label = dataset.weak(train[0], "pseudo")
    assert bool((label[:4, :4] == IGNORE).all())
    assert np.array_equal(label[4:], dataset.mask(train[0])[4:])
    digest = dataset.weak_fingerprint(train, "pseudo")
    assert digest == opened(root, pseudo(root, tmp_path / "b")).weak_fingerprint(train, "pseudo")
    assert np.array_equal(pickle.loads(pickle.dumps(dataset)).weak(train[0], "pseudo"), label)
    path = tmp_path / "a" / f"{train[1]}.png"
    changed = np.asarray(Image.open(path)).copy()
    changed[-1, -1] = IGNORE
    Image.fromarray(changed).save(path)
    os.utime(path, (1, 1))
    assert digest != opened(root, tmp_path / "a").weak_fingerprint(train, "pseudo")


def test_everything_that_is_wrong_is_told_at_once(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    folder = pseudo(root, tmp_path / "masks")
    train = open_dataset("folder", root=str(root)).ids("train")
    (folder / f"{train[0]}.png").unlink()
    Image.fromarray(np.zeros((7, 9), np.uint8)).save(folder / f"{train[1]}.png")
    Image.fromarray(np.full_like(np.asarray(Image.open(folder / f"{train[2]}.png")), 99)).save(
        folder / f"{train[2]}.png"
    )
    Image.open(folder / f"{train[3]}.png").convert("RGB").save(folder / f"{train[3]}.png")
    (folder / f"{train[4]}.png").write_bytes(b"no image")
    with pytest.raises(BadInput) as error:
        opened(root, folder).weak_fingerprint(train, "pseudo")
    told = str(error.value)
    for said in (
        "no pseudo mask for 1 training images",
        "pseudo mask of 9x7 pixels",
        "label 99",
        "RGB mask",
        "neither",
    ):
        assert said in told, said
    assert all(problem.fix for problem in error.value.problems)


def test_another_numbering_is_refused(voc_folder: Maker, tmp_path: Path) -> None:
    """Every class one number further on: legal values, of classes that the images do not hold."""
    root = voc_folder()

    def shifted(mask: np.ndarray) -> np.ndarray:
        classes = int(mask[mask != IGNORE].max())
        return np.where((mask == 0) | (mask == IGNORE), mask, mask % max(classes, 2) + 1)

    dataset = open_dataset("folder", root=str(root))
    train = dataset.ids("train")
    if all(dataset.tags(i).sum() == dataset.num_classes for i in train):
        pytest.skip("every image holds every class")
    with pytest.raises(BadInput, match="masks of another numbering"):
        opened(root, pseudo(root, tmp_path / "masks", shifted)).weak_fingerprint(train, "pseudo")


def test_nothing_labelled_and_no_folder_are_refused(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    blank = pseudo(root, tmp_path / "blank", lambda mask: np.full_like(mask, IGNORE))
    dataset = opened(root, blank)
    with pytest.raises(BadInput, match="has a labelled pixel"):
        dataset.weak_fingerprint(dataset.ids("train"), "pseudo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no PNG in"):
        opened(root, tmp_path / "empty")
    with pytest.raises(BadInput, match="there is no"):
        opened(root, tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"data\.pseudo=<folder>"):
        open_dataset("folder", root=str(root)).weak_fingerprint(("a0",), "pseudo")
    with pytest.raises(BadInput, match=r"data\.pseudo"):
        open_dataset("shapes", options={"pseudo": str(blank)})


def test_check_names_them(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    folder = pseudo(root, tmp_path / "masks")
    found = check(survey("folder", root=str(root), options={"pseudo": str(folder)}))
    assert "training images" in found.sources["pseudo"]
    assert str(folder) in found.sources["pseudo"]


def saved(root: Path, folder: Path, save: Callable[[np.ndarray, Path], None]) -> Path:
    folder.mkdir()
    dataset = open_dataset("folder", root=str(root))
    for image_id in dataset.ids("train"):
        save(dataset.mask(image_id), folder / f"{image_id}.png")
    return folder


def as_an_editor(mask: np.ndarray, path: Path) -> None:
    """Each file numbers the colours that it holds, the first the one of most pixels."""
    labels, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    held = labels[np.argsort(-counts)].tolist()
    numbers = np.full_like(mask, IGNORE)
    for at, label in enumerate(held):
        numbers[mask == label] = at
    image = Image.fromarray(numbers)
    image.putpalette([v for label in held for v in COLOURS[label]] + [0] * 3 * (256 - len(held)))
    image.save(path)


def of_another_order(mask: np.ndarray, path: Path) -> None:
    """All files alike, background last, in the colours of the dataset's own masks."""
    table = np.array([2, 0, 1, *range(3, 256)], np.uint8)
    image = Image.fromarray(table[mask])
    own = [(i, (i * 7) % 256, (i * 31) % 256) for i in range(256)]
    image.putpalette([v for label in np.argsort(table) for v in own[label]])
    image.save(path)


@pytest.mark.parametrize(
    ("save", "told"),
    [
        (as_an_editor, "label 1 has 2 colours over 12 files: each file has a palette of its own"),
        (of_another_order, "a0.png: wrong palette: label 0 has the colour of 1 (cat), 2 has the colour of 0 (backgrou"),
    ],
)
def test_palettes_of_another_numbering_are_refused_by_plan_and_check(
    voc_folder: Maker, tmp_path: Path, save: Callable[[np.ndarray, Path], None], told: str
) -> None:
    root = voc_folder()
    folder = saved(root, tmp_path / "masks", save)
    with pytest.raises(BadInput) as caught:
        opened(root, folder).weak_fingerprint(open_dataset("folder", root=str(root)).ids("train"), "pseudo")
    (problem,) = caught.value.problems
    assert told.removesuffix(": each file has a palette of its own") in str(problem)
    found = check(survey("folder", root=str(root), options={"pseudo": str(folder)}))
    assert (found.errors, found.exit_code) == ((problem,), 1)


def test_check_says_what_the_plan_refuses_of_numbers(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    folder = pseudo(root, tmp_path / "masks", lambda mask: np.where((mask == 0) | (mask == IGNORE), mask, 3 - mask))
    (problem,) = check(survey("folder", root=str(root), options={"pseudo": str(folder)})).errors
    assert problem.found.startswith("100 % of the pixels of classes are of classes that the tags exclude")


@pytest.mark.parametrize(
    ("words", "rows", "not_there"),
    [
        (["methods=full"], ["full-pseudo"], ["full-masks"]),
        (["methods=full", "labels=masks,pseudo"], ["full-pseudo", "full-masks"], []),
        (["methods=cam,full"], ["cam-tags", "full-pseudo"], ["full-masks"]),
    ],
)
def test_plans_say_what_was_trained_on(
    words: list[str], rows: list[str], not_there: list[str], voc_folder: Maker, tmp_path: Path, capsys
) -> None:
    root = voc_folder()
    folder = pseudo(root, tmp_path / "masks")
    given = [f"data.root={root}", f"data.pseudo={folder}", "tier=smoke", "crop=32", "dry_run=true"]
    given += ["data=folder", "backbone=vit_tiny_patch16_224", "backbone.weights=random", f"store={tmp_path / 's'}"]
    assert main(run, [*words, *given]) == 0
    plan = capsys.readouterr().out
    assert all(row in plan for row in rows), plan
    assert not any(row in plan for row in not_there)


def test_a_folder_that_nobody_trains_on_is_refused(voc_folder: Maker, tmp_path: Path, capsys) -> None:
    root = voc_folder()
    folder = pseudo(root, tmp_path / "masks")
    given = ["data=folder", f"data.root={root}", "backbone.weights=random", "dry_run=true", f"store={tmp_path / 's'}"]
    assert main(run, ["methods=cam", f"data.pseudo={folder}", *given]) == 2
    assert "no chosen method trains on pseudo masks" in capsys.readouterr().err
    assert main(run, ["methods=full", "labels=pseudo", *given]) == 2
    assert "data.pseudo=<folder>" in capsys.readouterr().err
