"""Sparse labels derived from masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from harness.api.batching import collate
from harness.api.method import Views
from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.weak import KINDS, strokes
from harness.datasets.weak.derive import STROKE, derive, pieces, version
from harness.errors import BadInput
from methods.parts.views.augment import pad_crop, resize_sparse_label

BYTES = {
    "points": (1, "647f42baaf8b1a6e"),
    "scribbles": (2, "e97f4ff18106c5a9"),
    "clicks20": (1, "521f7052787673be"),
    "clicks50": (1, "ee6f207734d921d0"),
    "clicks100": (1, "a6ac82042a3ba75b"),
    "blocks": (1, "09edb31040699165"),
}


def street() -> np.ndarray:
    """A 120x200 photo's mask: background, two objects of class 1, a thin pole of class 2, specks, a void border."""
    mask = np.zeros((120, 200), np.uint8)
    y, x = np.mgrid[:120, :200]
    mask[(y - 60) ** 2 + (x - 50) ** 2 < 900] = 1
    mask[20:50, 120:180] = 1
    mask[10:110, 100:103] = 2
    mask[100:102, 150:153] = 1
    mask[115:120] = IGNORE
    return mask


def test_pieces_are_components_and_specks_are_left_out():
    mask = street()
    found = pieces(mask, True)
    assert [(p.label, int(p.pixels_hw.sum())) for p in found] == [
        (1, 1800),
        (1, int((mask[:, :90] == 1).sum())),
        (2, 300),
    ]
    assert [p.label for p in pieces(mask, False)] == [0, 1, 1, 2]
    alone = np.zeros((100, 100), np.uint8)
    alone[3, 3:5] = 4
    assert [(p.label, int(p.pixels_hw.sum())) for p in pieces(alone, True)] == [(4, 2)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_background", [True, False])
def test_labels_agree_with_the_mask_and_with_themselves(kind, has_background):
    mask = street()
    label = derive(mask, kind, "a", has_background=has_background)
    assert label.dtype == np.uint8
    labelled = label != IGNORE
    assert np.array_equal(label[labelled], mask[labelled])
    assert 0 < labelled.mean() < 0.12
    assert np.array_equal(label, derive(mask, kind, "a", has_background=has_background))
    others = [
        derive(mask, kind, "b", has_background=has_background),
        derive(mask, kind, "a", has_background=has_background, seed=1),
    ]
    assert all(not np.array_equal(label, other) for other in others)


def test_points_are_one_dot_a_piece_and_two_on_the_background():
    label = derive(street(), "points", "a", has_background=True)
    for value, dots in ((1, 2), (2, 1)):
        marks, count = ndimage.label(label == value, np.ones((3, 3)))
        assert count == dots
        assert np.bincount(marks.ravel())[1:].max() <= STROKE**2
    assert 1 <= ndimage.label(label == 0, np.ones((3, 3)))[1] <= 2


def test_points_prefer_the_inside_of_large_pieces():
    mask = np.zeros((480, 480), np.uint8)
    mask[40:440, 40:440] = 1
    inner = 0
    for i in range(40):
        label = derive(mask, "points", str(i), has_background=True)
        y, x = np.argwhere(label == 1).mean(0)
        inner += min(y - 40, 440 - y, x - 40, 440 - x) >= 12
    assert inner >= 36  # the outer 12 pixels are 12 % of the square, and rarer still by depth squared


def test_scribbles_run_along_each_piece():
    mask = street()
    label = derive(mask, "scribbles", "a", has_background=True)
    pole = np.argwhere(label == 2)
    assert 45 <= np.ptp(pole[:, 0]) <= 100
    box = label[20:50, 120:180] == 1
    assert np.ptp(np.argwhere(box)[:, 1]) > 15
    assert ndimage.label(box, np.ones((3, 3)))[1] == 1
    assert (label == 0).sum() > 100


def span(label: np.ndarray, value: int) -> tuple[int, int]:
    y, x = np.nonzero(label == value)
    return int(np.ptp(y)) + 1, int(np.ptp(x)) + 1


def test_thin_large_pieces_get_more_than_a_dot():
    """A pole with a knob, a wheel of spokes: a coarse grid keeps the knob and the hub alone."""
    pole = np.zeros((360, 480), np.uint8)
    pole[20:204, 100:104] = 1
    pole[100:116, 94:110] = 1
    label = derive(pole, "scribbles", "a", has_background=True)
    assert span(label, 1)[0] >= 0.45 * 184
    wheel = np.zeros((400, 520), np.uint8)
    y, x = np.mgrid[:400, :520]
    away = np.hypot(y - 200, x - 260)
    angle = np.arctan2(y - 200, x - 260)
    wheel[(away < 180) & (np.abs(np.sin(4 * angle)) * away < 8)] = 2
    wheel[away < 20] = 2
    assert max(span(derive(wheel, "scribbles", "a", has_background=True), 2)) >= 120
    disc = np.where(away < 180, 3, 0).astype(np.uint8)
    found = strokes._middle_line(disc[20:381, 80:441] == 3, 4)
    assert found[1] == 4, "a compact piece is looked at once"


def test_strokes_on_a_coarse_grid_have_no_gaps():
    """A piece ten times as long as the grid allows still gets one connected stroke inside it."""
    mask = np.zeros((1000, 1100), np.uint8)
    mask[100:900, 50:1050] = 1
    label = derive(mask, "scribbles", "a", has_background=False)
    assert ndimage.label(label == 1, np.ones((3, 3)))[1] == 1
    assert (label == 1).sum() > 3 * 90


@pytest.mark.parametrize("number", [1, 20, 100])
def test_clicks_are_so_many_distinct_pixels(number):
    label = derive(street(), f"clicks{number}", "a", has_background=True)
    assert (label != IGNORE).sum() == number
    few = np.full((4, 4), IGNORE, np.uint8)
    few[0, :2] = 3
    assert (derive(few, "clicks20", "a", has_background=True) == 3).sum() == 2


def test_blocks_are_a_tenth_of_the_grid_labelled_whole():
    mask = street()
    label = derive(mask, "blocks", "a", has_background=True)
    cells = label.reshape(10, 12, 10, 20)
    whole = (cells == mask.reshape(10, 12, 10, 20)).all((1, 3))
    empty = (cells == IGNORE).all((1, 3))
    assert (whole & ~empty).sum() == 10 or (mask[108:] == IGNORE).any()
    assert (whole | empty).all()


def test_odd_masks_survive():
    for mask in (np.full((5, 7), IGNORE, np.uint8), np.zeros((1, 1), np.uint8), np.ones((2, 2), np.uint8)):
        for kind in KINDS:
            label = derive(mask, kind, "a", has_background=True)
            assert label.shape == mask.shape
            assert set(np.unique(label)) <= {*np.unique(mask), IGNORE}


def test_bytes_stay_with_the_version():
    """Derived labels are part of every key by the version of their kind: raise it when a digest changes."""
    found = {
        kind: (version(kind), hashlib.sha256(derive(street(), kind, "a", has_background=True)).hexdigest()[:16])
        for kind in KINDS
    }
    assert found == BYTES


def test_unknown_kinds_are_answered():
    for bad in ("point", "clicks", "clicks0", "clicks-5", "dots"):
        with pytest.raises(BadInput, match="no weak labels"):
            derive(street(), bad, "a", has_background=True)


def test_any_dataset_offers_them(voc_folder: Callable[..., Path]):
    dataset = open_dataset("folder", root=str(voc_folder()))
    for kind in KINDS:
        first = dataset.weak("a1", kind)
        assert np.array_equal(first, derive(dataset.mask("a1"), kind, "a1", has_background=True))
        first[:] = 7  # a caller's own copy
        assert not (dataset.weak("a1", kind) == 7).any()
    assert dataset.weak_fingerprint(("a1",), "points") == "derived 1"
    assert dataset.weak_fingerprint(("a1",), "scribbles") == "derived 2"


def test_unlabelled_pixels_are_not_padding():
    """agmm.md 7: with 255 for both, all that is learned outside labels collapses to the labelled pixels. Here the
    content mask tells them apart: all real pixels count as content, however few are labelled."""
    mask = street()
    image = np.zeros((*mask.shape, 3), np.uint8)
    rng = np.random.default_rng(0)
    crop = pad_crop(image, derive(mask, "clicks20", "a", has_background=True), 160, rng)
    views = Views(
        {"view1": torch.zeros(3, 160, 160)},
        torch.from_numpy(crop.label_HW.astype(np.int64)),
        torch.from_numpy(crop.content_HW),
    )
    batch = collate(["a"], [views], [np.ones(2, np.float32)])
    labelled, content = batch.label_BHW != IGNORE, batch.content_BHW
    assert int(content.sum()) == 120 * 160
    assert 0 < int(labelled.sum()) <= 20
    assert bool((content | ~labelled).all())
    assert not bool((content == labelled).all())


def test_sparse_resize_by_hand():
    label = np.full((4, 6), IGNORE, np.uint8)
    label[1, 0], label[3, 5], label[0, 3] = 1, 2, 3
    expected = np.full((2, 3), IGNORE, np.uint8)
    expected[0, 0], expected[1, 2], expected[0, 1] = 1, 2, 3
    assert np.array_equal(resize_sparse_label(label, (2, 3)), expected)
    grown = resize_sparse_label(label, (8, 12))
    assert (grown == 1).sum() == 4
    assert resize_sparse_label(None, (2, 3)) is None
    untouched = label.copy()
    resize_sparse_label(label, (4, 3))
    assert np.array_equal(label, untouched)


def test_thin_and_coarse_by_hand():
    square = np.ones((5, 5), bool)
    assert strokes.coarse(square, 2).shape == (2, 2)
    square[0, 0] = False
    assert strokes.coarse(square, 2).tolist() == [[False, True], [True, True]]
    assert strokes.depths(np.ones((3, 3), bool), 4).tolist() == [[1, 1, 1], [1, 2, 1], [1, 1, 1]]
    assert strokes.depths(np.ones((9, 9), bool), 3).max() == 3
