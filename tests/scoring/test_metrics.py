"""IoU, mIoU, the tables made from counts, and the row that is background everywhere, by hand-computed numbers."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from harness.scoring.confusion import image_counts
from harness.scoring.curves import THRESHOLDS, Curve, ImageCurve
from harness.scoring.frames import counts_frame, curves_frame
from harness.scoring.metrics import (
    all_background,
    class_counts,
    image_f1,
    iou,
    iou_array,
    miou,
    miou_array,
    miou_of,
    mious,
)
from harness.store import SCHEMAS, Store, load

COUNTS_IK3 = np.array(
    [[[2, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]], [[4, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]], np.zeros((4, 3))],
    np.int64,
)


def frame(eval_id: str = "e") -> pl.DataFrame:
    return counts_frame(eval_id, ["a", "b", "c"], COUNTS_IK3)


def test_counts_frame_keeps_occurring_classes_and_every_image() -> None:
    rows = frame()
    assert dict(rows.schema) == SCHEMAS["counts"]
    assert rows.select("image", "class").rows() == [("a", 0), ("a", 1), ("b", 0), ("b", 2), ("c", 0)]
    assert rows.filter(pl.col("image") == "c").select("tp", "fp", "fn").row(0) == (0, 0, 0)


def test_iou_and_miou_by_hand() -> None:
    table = iou(frame())
    assert table["class"].to_list() == [0, 1, 2]
    assert table["iou"].to_list() == [6 / 9, 1 / 3, 0.0]
    assert class_counts(frame()).select("tp", "fp", "fn").row(0) == (6, 1, 2)
    value, excluded = miou(frame(), 4)
    assert value == pytest.approx(1 / 3, abs=1e-15)
    assert excluded == 1
    assert miou(frame()) == (value, 0)


def test_arrays_and_queries_are_one_definition() -> None:
    total = COUNTS_IK3.sum(0)
    assert iou_array(total)[:3].tolist() == iou(frame())["iou"].to_list()
    assert math.isnan(iou_array(total)[3])
    assert miou_array(total) == miou(frame())[0]
    assert math.isnan(miou_array(np.zeros((3, 3))))


def test_many_evals_at_once() -> None:
    perfect = COUNTS_IK3 * np.array([1, 0, 0])
    nothing = counts_frame("z", ["a"], np.zeros((1, 4, 3), np.int64))
    both = pl.concat([frame("e"), counts_frame("d", ["a", "b", "c"], perfect), nothing])
    table = mious(both, 4)
    assert table["eval"].to_list() == ["d", "e", "z"]
    assert table["miou"].to_list() == [1.0, pytest.approx(1 / 3), None]
    assert table["classes"].to_list() == [2, 3, 0]
    assert table["excluded"].to_list() == [2, 1, 4]
    assert iou(both).filter(pl.col("eval") == "e").equals(iou(frame("e")))
    with pytest.raises(ValueError, match="3 evals"):
        miou(both)


def test_no_class_at_all_is_nan() -> None:
    value, excluded = miou(counts_frame("e", ["a"], np.zeros((1, 2, 3), np.int64)), 2)
    assert math.isnan(value)
    assert excluded == 2


def test_sums_are_int64() -> None:
    big = counts_frame("e", [str(i) for i in range(4)], np.full((4, 1, 3), 2**31 - 1, np.int64))
    assert class_counts(big)["tp"].to_list() == [4 * (2**31 - 1)]
    assert iou(big)["iou"].to_list() == [1 / 3]


def test_miou_of_a_store(tmp_path: object) -> None:
    store = Store(str(tmp_path))
    store.write("counts", "e", frame())
    results = load(str(tmp_path))
    assert miou_of(results, "e") == pytest.approx(1 / 3)
    with pytest.raises(KeyError, match="no counts of eval x"):
        miou_of(results, "x")


def test_curves_frame_matches_the_curve() -> None:
    truth = np.array([[0, 1, 2, 255]], np.uint8)
    best = np.array([[1, 1, 1, 2]], np.uint8)
    score = np.array([[0.2, 0.5, 0.9, 0.9]], np.float32)
    curve = Curve.sum([ImageCurve.of(score, best, truth, THRESHOLDS, 4)])
    rows = curves_frame("e", curve)
    assert dict(rows.schema) == SCHEMAS["curves"]
    assert 3 not in rows["class"]
    for j in (0, 20, 50, 99):
        at = rows.filter(pl.col("threshold") == THRESHOLDS[j])
        for label in range(3):
            found = at.filter(pl.col("class") == label).select("tp", "fp", "fn").rows()
            assert found == ([tuple(curve.counts(j)[label])] if curve.counts(j)[label].any() else [])
    table = mious(rows.filter(pl.col("threshold") == 0.2))
    assert table["miou"][0] == curve.mious()[20]


@pytest.mark.parametrize("has_background", [True, False])
def test_all_background_equals_the_real_prediction(has_background: bool) -> None:
    rng = np.random.default_rng(7)
    truths = [rng.choice([0, 1, 2, 255], (8, 9), p=[0.2, 0.5, 0.2, 0.1]).astype(np.uint8) for _ in range(6)]
    truths.append(np.full((3, 3), 255, np.uint8))
    truths.append(np.full((3, 3), 2, np.uint8))
    names = [f"i{n}" for n in range(len(truths))]
    preds = [rng.choice([0, 1, 2, 255], t.shape).astype(np.uint8) for t in truths]
    counts = counts_frame("e", names, np.stack([image_counts(p, t, 3) for p, t in zip(preds, truths, strict=True)]))
    guess = 0 if has_background else 1
    real = np.stack([image_counts(np.full_like(t, guess), t, 3) for t in truths])
    found = all_background(counts, has_background=has_background)
    assert found.equals(counts_frame("e", names, real))


def test_most_frequent_class_ties_go_to_the_lowest() -> None:
    counts = counts_frame("e", ["a"], np.array([[[0, 0, 1], [3, 0, 1], [4, 2, 0]]], np.int64))
    assert all_background(counts, has_background=False).rows() == [
        ("e", "a", 0, 0, 0, 1), ("e", "a", 1, 4, 5, 0), ("e", "a", 2, 0, 0, 4)
    ]  # fmt: skip


def test_frames_check_their_lengths() -> None:
    with pytest.raises(ValueError, match="2 images"):
        counts_frame("e", ["a", "b"], COUNTS_IK3)
    assert counts_frame("e", [], np.zeros((0, 2, 3), np.int64)).height == 0


def test_a11_image_f1_is_scikit_learns():
    rng = np.random.default_rng(3)
    logits, tags = rng.normal(size=(40, 6)), (rng.random((40, 6)) < 0.3).astype(np.float32)
    logits[0], tags[0] = -1, 0
    expected = np.mean([f1_score(t, row > 0, zero_division=0) for t, row in zip(tags, logits, strict=True)])
    assert image_f1(logits, tags) == pytest.approx(expected)
    assert image_f1([[1.0, -1.0], [-1.0, 1.0]], [[1, 0], [1, 1]]) == pytest.approx((1 + 2 / 3) / 2)


def test_a11_by_hand():
    """agmm.md self-check 6: pred 0,0,1,1, truth 0,1,1,255: IoU 1/2 and 1/2; the third label occurs nowhere."""
    pred, truth = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 255]], np.uint8)
    counts = image_counts(pred, truth, 3)
    assert iou_array(counts)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(iou_array(counts)[2])
    assert miou(counts_frame("e", ["a"], counts[None]), 3) == (0.5, 1)
