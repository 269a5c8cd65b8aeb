"""One pass for all thresholds equals the field's loop, integer for integer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.confusion import image_counts
from harness.scoring.curves import (
    THRESHOLDS,
    Curve,
    ImageCurve,
    threshold_bins,
    threshold_grid,
    threshold_index,
)


def loop(cam_CHW: np.ndarray, truth_HW: np.ndarray, thresholds: np.ndarray, num_labels: int) -> np.ndarray:
    """The field's way: per threshold a constant background channel before the classes, then argmax."""
    out = []
    for threshold in thresholds:
        background = np.full_like(cam_CHW[:1], threshold)
        pred = np.argmax(np.concatenate([background, cam_CHW]), 0)
        out.append(image_counts(pred, truth_HW, num_labels))
    return np.stack(out)


def one_pass(cam_CHW: np.ndarray, truth_HW: np.ndarray, thresholds: np.ndarray, num_labels: int) -> np.ndarray:
    best = np.argmax(cam_CHW, 0)
    score = np.take_along_axis(cam_CHW, best[None], 0)[0]
    curve = ImageCurve.of(score, best + 1, truth_HW, thresholds, num_labels)
    return np.stack([curve.counts(j) for j in range(len(thresholds))])


def adversarial(rng: np.random.Generator, shape: tuple[int, ...], grid: np.ndarray, dtype: type) -> np.ndarray:
    """Scores on thresholds, one ulp beside them, signed zeros, outside [0,1], infinite, NaN, and class ties."""
    edges = grid.astype(dtype)
    near = [edges, np.nextafter(edges, dtype(np.inf)), np.nextafter(edges, dtype(-np.inf))]
    odd = np.array([-0.0, 0.0, 1.0, 1.5, -0.25, 7e4, -7e4, np.inf, -np.inf, np.nan, 1e-45, -1e-45], dtype)
    pool = np.concatenate([*near, odd, rng.random(200).astype(dtype)])
    return rng.choice(pool, shape).astype(dtype)


def truth_map(rng: np.random.Generator, shape: tuple[int, int], num_labels: int) -> np.ndarray:
    truth = rng.integers(0, num_labels, shape).astype(np.uint8)
    truth[rng.random(shape) < 0.1] = 255
    return truth


GRIDS = {
    "default": THRESHOLDS,
    "with preset values": threshold_grid(0.455, 0.333, 0.999),
    "one": np.array([0.4]),
    "random": np.sort(np.random.default_rng(5).random(37)),
    "dense": np.arange(1000) / 1000,
    "negative and above one": np.array([-0.5, -0.0, 0.2, 1.0, 1.25]),
    "repeated after the cast": np.array([0.1, 0.1, 0.1 + 1e-12, 0.7]),
    "tiny span": np.array([0.5, 0.5 + 1e-5]),
    "wide span": np.array([-1e6, 0.0, 1e6]),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_equals_the_loop_on_adversarial_scores(grid: np.ndarray, dtype: type) -> None:
    rng = np.random.default_rng(3)
    shape, classes = (96, 97), 4
    cam = adversarial(rng, (classes, *shape), grid, dtype)
    cam[1, :20] = cam[0, :20]
    truth = truth_map(rng, shape, classes + 1)
    some = grid if len(grid) <= 120 else grid[::31]
    found = one_pass(cam, truth, grid, classes + 1)
    assert (found[:: 1 if len(grid) <= 120 else 31] == loop(cam, truth, some, classes + 1)).all()


@pytest.mark.parametrize("num_labels", [21, 81])
def test_equals_the_loop_on_smooth_maps(num_labels: int) -> None:
    rng = np.random.default_rng(num_labels)
    rows, columns = np.mgrid[0:120, 0:110] / 110
    cam = np.zeros((num_labels - 1, 120, 110), np.float32)
    for c in (2, 11, num_labels - 2):
        y, x = rng.random(2)
        cam[c] = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) * 9)
    truth = np.where(cam[11] > 0.5, 12, np.where(cam[2] > 0.6, 3, 0)).astype(np.uint8)
    truth[:5] = 255
    grid = threshold_grid(0.455)
    assert (one_pass(cam, truth, grid, num_labels) == loop(cam, truth, grid, num_labels)).all()


@given(
    st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=8),
    st.lists(st.floats(-3, 3, width=32) | st.just(float("nan")), min_size=1, max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_bins_count_thresholds_strictly_below(grid: list[float], scores: list[float]) -> None:
    thresholds = np.sort(np.array(grid, np.float64))
    few = np.array(scores, np.float32)
    many = np.resize(few, 9000)
    brute = np.array([len(thresholds) if np.isnan(s) else int((thresholds.astype(np.float32) < s).sum()) for s in few])
    assert (threshold_bins(few, thresholds) == brute).all()
    assert (threshold_bins(many, thresholds) == np.resize(brute, 9000)).all()


def test_every_float_around_every_threshold() -> None:
    grid = threshold_grid(0.455, 0.01234)
    edges = grid.astype(np.float32)
    up = down = edges
    near = [edges]
    for _ in range(60):
        up, down = np.nextafter(up, np.float32(2)), np.nextafter(down, np.float32(-2))
        near += [up, down]
    scores = np.concatenate(near)
    assert scores.size > 8192
    assert (threshold_bins(scores, grid) == np.searchsorted(edges, scores, side="left")).all()


def test_hand_counted() -> None:
    truth = np.array([[0, 1, 2, 255]], np.uint8)
    best = np.array([[1, 1, 1, 2]], np.uint8)
    score = np.array([[0.2, 0.5, 0.9, 0.9]], np.float32)
    curve = ImageCurve.of(score, best, truth, np.array([0.1, 0.2, 0.5, 0.9]), 3)
    assert curve.counts(0).tolist() == [[0, 0, 1], [1, 2, 0], [0, 0, 1]]
    assert curve.counts(1).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert curve.counts(2).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert curve.counts(3).tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 1]]


def test_best_label_background_is_background_everywhere() -> None:
    truth = np.array([[0, 1]], np.uint8)
    curve = ImageCurve.of(np.array([[0.9, np.nan]], np.float32), np.zeros((1, 2), np.uint8), truth, THRESHOLDS, 2)
    for j in (0, 99):
        assert curve.counts(j).tolist() == [[1, 1, 0], [0, 0, 1]]


def test_image_without_counted_pixels() -> None:
    truth = np.full((4, 4), 255, np.uint8)
    curve = ImageCurve.of(np.ones((4, 4), np.float32), np.ones((4, 4), np.uint8), truth, THRESHOLDS, 3)
    assert not curve.counts(0).any()
    with pytest.raises(ValueError, match="no threshold is best"):
        Curve.sum([curve]).best()


def test_sum_and_best() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(5):
        truth = truth_map(rng, (30, 30), 3)
        best = rng.integers(1, 3, (30, 30)).astype(np.uint8)
        score = np.where(truth == best, 0.6, 0.3).astype(np.float32)
        images.append(ImageCurve.of(score, best, truth, THRESHOLDS, 3))
    curve = Curve.sum(iter(images))
    for j in (0, 30, 59, 99):
        assert (curve.counts(j) == sum(i.counts(j) for i in images)).all()
    assert THRESHOLDS[curve.best()] == 0.3
    counts = curve.counts(curve.best())
    assert curve.mious()[curve.best()] == (counts[:, 0] / counts.sum(1)).mean()


def test_best_looks_past_a_dip() -> None:
    counts = np.zeros((1, 4, 3), np.int64)
    counts[0, :, 0] = [50, 20, 70, 70]
    counts[0, :, 1] = 100 - counts[0, :, 0]
    assert Curve(np.array([0.1, 0.2, 0.3, 0.4]), counts).best() == 2


def test_sum_is_int64() -> None:
    big = ImageCurve(np.array([0.5]), 2, np.array([0, 1]), np.full((2, 1, 3), 2**31 - 1, np.int32))
    assert (Curve.sum([big] * 3).counts(0) == 3 * (2**31 - 1)).all()


def test_bad_input_is_refused() -> None:
    score, best, truth = np.zeros((2, 2), np.float32), np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="ascend"):
        ImageCurve.of(score, best, truth, np.array([0.5, 0.4]), 2)
    with pytest.raises(ValueError, match="ascend"):
        ImageCurve.of(score, best, truth, np.array([np.nan]), 2)
    with pytest.raises(ValueError, match="prediction holds label 2"):
        ImageCurve.of(score, best + 1, truth, THRESHOLDS, 2)
    with pytest.raises(ValueError, match="truth holds label 2"):
        ImageCurve.of(score, best, truth + 2, THRESHOLDS, 2)
    with pytest.raises(ValueError, match="differ"):
        ImageCurve.of(score, best, truth[:1], THRESHOLDS, 2)
    with pytest.raises(ValueError, match="scores are"):
        ImageCurve.of(best, best, truth, THRESHOLDS, 2)
    other = ImageCurve.of(score, best, truth, np.array([0.5]), 2)
    with pytest.raises(ValueError, match="different grids"):
        Curve.sum([other, ImageCurve.of(score, best, truth, THRESHOLDS, 2)])
    with pytest.raises(ValueError, match="no curve"):
        Curve.sum([])


def test_grid_keeps_decimal_values() -> None:
    grid = threshold_grid(0.455, 0.45)
    assert len(grid) == 101
    assert threshold_index(grid, 0.455) == 46
    assert threshold_index(THRESHOLDS, 0.45) == 45
    with pytest.raises(ValueError, match="not in the grid"):
        threshold_index(THRESHOLDS, 0.455)
