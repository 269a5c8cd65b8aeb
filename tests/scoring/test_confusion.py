"""Counting pixels: equality with scikit-learn, a hand-drawn picture, and the cases that corrupt naive counters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from harness.scoring import confusion as module
from harness.scoring.confusion import confusion, confusion_and_missed, counts_from_confusion, image_counts


def blobs(rng: np.random.Generator, shape: tuple[int, int], labels: int, cell: int = 16) -> np.ndarray:
    """Piecewise constant labels with an ignored border around some pieces."""
    coarse = rng.integers(0, labels, (-(-shape[0] // cell), -(-shape[1] // cell)))
    coarse[rng.random(coarse.shape) < 0.1] = 255
    return np.kron(coarse, np.ones((cell, cell), int))[: shape[0], : shape[1]].astype(np.uint8)


def expected(pred: np.ndarray, truth: np.ndarray, labels: int) -> np.ndarray:
    kept = (truth != 255) & (pred != 255)
    return confusion_matrix(truth[kept], pred[kept], labels=range(labels))


def test_hand_drawn_three_by_three() -> None:
    truth = np.array([[0, 0, 1], [0, 2, 1], [255, 2, 2]], np.uint8)
    pred = np.array([[0, 1, 1], [0, 2, 0], [1, 255, 2]], np.uint8)
    conf, missed = confusion_and_missed(pred, truth, 4)
    assert conf.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert missed.tolist() == [0, 0, 1, 0]
    assert counts_from_confusion(conf, missed).tolist() == [[2, 1, 1], [1, 1, 1], [2, 0, 1], [0, 0, 0]]
    assert image_counts(pred, truth, 4).dtype == np.int64


@pytest.mark.parametrize("labels", [1, 2, 21, 81, 255])
@pytest.mark.parametrize("kind", ["blobs", "random"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_equals_sklearn(labels: int, kind: str, dtype: type) -> None:
    rng = np.random.default_rng(labels)
    shape = (120, 167)
    if kind == "blobs":
        truth, pred = blobs(rng, shape, labels), blobs(rng, shape, labels, 23)
    else:
        truth, pred = (rng.integers(0, labels, shape).astype(np.uint8) for _ in range(2))
        truth[rng.random(shape) < 0.1] = 255
    found = confusion(pred.astype(dtype), truth.astype(dtype), labels)
    assert (found == expected(pred, truth, labels)).all()
    assert found.dtype == np.int64


@given(st.integers(1, 6), st.integers(1, 40), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_both_forms_agree(labels: int, size: int, random: object) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    pred, truth = (rng.choice([*range(labels), 255], size).astype(np.uint8) for _ in range(2))
    every = np.ones(size - 1, np.bool_)
    runs, dense = module._runs(pred, truth, every, labels), module._dense(pred, truth, labels)
    assert (runs == dense).all()
    assert (module._table(pred, truth, labels) == dense).all()
    assert runs.sum() == size


def test_form_follows_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    smooth, noise = blobs(rng, (160, 160), 5), rng.integers(0, 5, (160, 160)).astype(np.uint8)
    used = []
    monkeypatch.setattr(module, "_dense", lambda *_: used.append("dense") or np.zeros((7, 7), np.int64))
    confusion(smooth, smooth, 5)
    assert used == []
    confusion(noise, smooth, 5)
    assert used == ["dense"]


def test_all_ignored_and_empty() -> None:
    truth = np.full((5, 5), 255, np.uint8)
    assert not image_counts(np.zeros((5, 5), np.uint8), truth, 3).any()
    assert not image_counts(np.zeros((0, 5), np.uint8), truth[:0], 3).any()


def test_no_prediction_is_a_miss_and_nothing_else() -> None:
    truth = np.array([[1, 1, 255]], np.uint8)
    pred = np.array([[255, 255, 255]], np.uint8)
    assert image_counts(pred, truth, 2).tolist() == [[0, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize("shape", [(1, 3), (200, 200)])
@pytest.mark.parametrize(("pred", "truth", "word"), [(3, 0, "prediction"), (0, 7, "truth"), (3, 255, "prediction")])
def test_illegal_labels_are_named(shape: tuple[int, int], pred: int, truth: int, word: str) -> None:
    preds, truths = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    preds[0, 1], truths[0, 1] = pred, truth
    with pytest.raises(ValueError, match=f"{word} holds label"):
        confusion(preds, truths, 3)
    rng = np.random.default_rng(1)
    noisy = rng.integers(0, 3, shape).astype(np.uint8)
    noisy[0, 1] = pred
    with pytest.raises(ValueError, match=f"{word} holds label"):
        confusion(noisy, truths, 3)


@pytest.mark.parametrize("value", [-1, 256, 257 + 255])
def test_wide_types_never_wrap(value: int) -> None:
    pred = np.array([[value]], np.int64)
    with pytest.raises(ValueError, match=r"outside 0\.\.255"):
        confusion(pred, np.zeros((1, 1), np.uint8), 3)
    with pytest.raises(ValueError, match="not integer"):
        confusion(np.zeros((1, 1)), np.zeros((1, 1), np.uint8), 3)


def test_shapes_and_label_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="truth is"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 3)
    with pytest.raises(ValueError, match="num_labels"):
        confusion(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 256)


def test_index_of_high_labels_does_not_overflow_a_byte() -> None:
    truth = np.full((40, 40), 20, np.uint8)
    assert confusion(truth, truth, 21)[20, 20] == 1600
    noisy = np.random.default_rng(0).integers(200, 254, (80, 80)).astype(np.uint8)
    assert (confusion(noisy, noisy, 254) == expected(noisy, noisy, 254)).all()


def test_more_than_two_to_the_31_pixels() -> None:
    one = confusion(np.ones((1024, 1024), np.uint8), np.ones((1024, 1024), np.uint8), 2)
    total = np.zeros((2, 2), np.int64)
    for _ in range(2100):
        total += one
    counts = counts_from_confusion(total)
    assert counts[1].tolist() == [2100 * 2**20, 0, 0]
    assert counts[1, 0] > 2**31


def test_views_that_are_not_contiguous() -> None:
    rng = np.random.default_rng(4)
    pred, truth = rng.integers(0, 3, (2, 60, 60)).astype(np.uint8)
    assert (confusion(pred.T, truth.T, 3) == confusion(pred, truth, 3)).all()
    assert (confusion(pred[:, ::-1], truth[:, ::-1], 3) == confusion(pred, truth, 3)).all()
