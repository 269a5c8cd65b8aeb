"""What masks say together: numbers that are no classes, and palettes that each file has for itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.datasets import open_dataset
from harness.datasets.tools import checking
from harness.errors import BadInput, Problem

Maker = Callable[..., Path]
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0)}


def repaint(root: Path, change: Callable[[int, np.ndarray], np.ndarray]) -> Path:
    """The folder with every mask changed by `change(number, mask)`, saved as grey PNGs."""
    for number, path in enumerate(sorted((root / "SegmentationClass").glob("*.png"))):
        Image.fromarray(change(number, np.array(Image.open(path))).astype(np.uint8)).save(path)
    return root


def told(root: Path) -> list[Problem]:
    report = checking.check(checking.survey("folder", root=str(root)))
    assert not report.errors
    masks = str(root / "SegmentationClass")
    return [p for p in report.warnings if p.where == masks]


def test_a_folder_that_counts_its_classes_well_is_not_asked(voc_folder: Maker) -> None:
    assert told(voc_folder(classes=None)) == []


@pytest.mark.parametrize("ignore", [250, 254, 100])
def test_a_lonely_high_number_may_be_ignore(ignore: int, voc_folder: Maker) -> None:
    root = repaint(voc_folder(classes=None), lambda _, mask: np.where(mask == 255, ignore, mask))
    (asked,) = told(root)
    assert asked.found == (
        f"labels 3..{ignore - 1} occur in no mask, yet {ignore} does: {ignore + 1} classes are counted; "
        f"is {ignore} meant as 'ignore'?"
    )
    assert asked.fix.startswith("write 255 for ignore; or name the classes")
    dataset = open_dataset("folder", root=str(root))
    assert dataset.num_labels == ignore + 1
    assert dataset.warnings(dataset.ids("train")) == [asked]


@pytest.mark.parametrize("white", [128, 254])
def test_one_high_number_beside_the_background_is_the_foreground(white: int, voc_folder: Maker) -> None:
    """As drawing programs write a silhouette: to make 255 of it would leave nothing to learn."""
    root = repaint(voc_folder(classes=None), lambda _, mask: np.where((mask > 0) & (mask < 255), white, mask))
    (asked,) = told(root)
    assert asked.found.endswith(f"{white + 1} classes are counted; is {white} the foreground?")
    assert asked.fix.startswith("write 1 for it; or name the classes")
    repaint(root, lambda _, mask: np.where(mask == white, 1, mask))
    assert told(root) == []


def test_classes_that_begin_at_1_and_classes_with_holes_are_asked_of(voc_folder: Maker) -> None:
    root = repaint(voc_folder(classes=None), lambda _, mask: np.where(mask == 255, 255, mask + 1))
    (asked,) = told(root)
    assert asked.found.endswith(
        "labels 0 occur in no mask, yet 3 does: 4 classes are counted; do the classes begin at 1?"
    )
    repaint(root, lambda _, mask: np.where(mask == 3, 4, mask))
    (asked,) = told(root)
    assert asked.found == "labels 0, 3 occur in no mask, yet 4 does: 5 classes are counted"
    assert asked.fix.startswith("number the classes without gaps")


def test_masks_that_were_resized_by_interpolation_are_asked_of(voc_folder: Maker) -> None:
    def resized(number: int, mask: np.ndarray) -> np.ndarray:
        classes = np.where(mask == 255, 0, mask) * 40
        large = Image.fromarray(classes.astype(np.uint8)).resize((640, 480), Image.Resampling.BILINEAR)
        return np.asarray(large)

    root = repaint(voc_folder(classes=None), resized)
    for path in (root / "JPEGImages").glob("*.jpg"):
        Image.open(path).resize((640, 480)).save(path)
    blends = told(root)[-1]
    assert "66 of 69 labels cover less than 0.5% of every image that shows them (1, 2, 3, 4, 5, ...)" in blends.found
    assert "resized by interpolation" in blends.found
    assert blends.fix.startswith("resize masks by nearest neighbour")


def test_a_slip_of_one_pixel_is_asked_of(voc_folder: Maker) -> None:
    def slip(number: int, mask: np.ndarray) -> np.ndarray:
        large = np.kron(mask, np.ones((8, 8), np.uint8))
        large[0, :3] = 3 if number == 2 else 0
        return large

    root = repaint(voc_folder(classes=None), slip)
    for path in (root / "JPEGImages").glob("*.jpg"):
        Image.open(path).resize((256, 192)).save(path)
    (asked,) = told(root)
    assert asked.found == "labels that one image alone shows, with less than 0.1% of it: 3 (3 pixels); are they meant?"


def test_named_classes_are_not_asked_of(voc_folder: Maker) -> None:
    """Numbers outside a list of names are errors of their files."""
    root = repaint(voc_folder(), lambda _, mask: np.where(mask == 255, 250, mask))
    report = checking.check(checking.survey("folder", root=str(root)))
    assert [p.found.partition(",")[0] for p in report.errors] == ["label 250"]
    assert [p for p in report.warnings if "ignore" in p.found] == []


def save_with(root: Path, palettes: Callable[[int, np.ndarray], tuple[np.ndarray, dict[int, tuple[int, ...]]]]) -> Path:
    for number, path in enumerate(sorted((root / "SegmentationClass").glob("*.png"))):
        mask, colours = palettes(number, np.array(Image.open(path)))
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette([v for label in range(256) for v in colours.get(label, (9, 9, label))])
        image.save(path)
    return root


def errors_of(root: Path) -> list[Problem]:
    dataset = open_dataset("folder", root=str(root))
    with pytest.raises(BadInput) as caught:
        dataset.check(dataset.ids("train") + dataset.ids("val"))
    return caught.value.problems


def test_a_palette_of_each_files_own_is_an_error(voc_folder: Maker) -> None:
    """As an image editor saves them: each file numbers the colours that it holds, here from the last to the first."""

    def own(number: int, mask: np.ndarray) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
        held = sorted(np.unique(mask[mask != 255]).tolist(), reverse=True)
        renumbered = np.full_like(mask, 255)
        for at, label in enumerate(held):
            renumbered[mask == label] = at
        return renumbered, {at: COLOURS[label] for at, label in enumerate(held)}

    (problem,) = errors_of(save_with(voc_folder(), own))
    assert problem.found.startswith("label 0 has 2 colours over 15 files")
    assert "each file has a palette of its own" in problem.found
    report = checking.check(checking.survey("folder", root=problem.where.removesuffix("/SegmentationClass")))
    assert report.exit_code == 1


def test_two_files_with_swapped_colours_are_enough(voc_folder: Maker) -> None:
    swapped = {**COLOURS, 1: COLOURS[2], 2: COLOURS[1]}
    root = save_with(voc_folder(), lambda number, mask: (mask, swapped if number == 0 else COLOURS))
    (problem,) = errors_of(root)
    assert "#008000 is label 1 and 2" in problem.found


def test_two_sets_of_colours_are_a_question_and_grey_or_one_palette_none(voc_folder: Maker) -> None:
    others = {0: (0, 0, 0), 1: (255, 0, 255), 2: (0, 255, 255)}
    root = save_with(voc_folder(), lambda number, mask: (mask, others if number % 3 else COLOURS))
    (asked,) = told(root)
    assert asked.found.startswith("label 1 has 2 colours, label 2 has 2 colours over 17 files: are their numbers")
    ramp = {label: (label, label, label) for label in range(256)}
    save_with(root, lambda number, mask: (mask, ramp if number % 2 else COLOURS))
    assert told(root) == []
    save_with(root, lambda number, mask: (mask, COLOURS))
    assert told(root) == []
