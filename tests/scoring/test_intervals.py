"""Resampling: intervals, paired differences, Holm and ranks, against hand calculation and brute force."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import polars as pl
import pytest
from scipy.stats import beta

from harness.scoring.frames import counts_frame
from harness.scoring.intervals import NotPaired, Row, difference, holm, interval, pairable, rank, resample
from harness.scoring.metrics import miou


def images(count: int) -> list[str]:
    return [f"image{n:04d}" for n in range(count)]


def scored(rng: np.random.Generator, quality: np.ndarray | float, count: int = 80, labels: int = 4) -> pl.DataFrame:
    """Counts of a made-up method: about `quality` of 1000 pixels of each class right."""
    right = np.clip(rng.normal(quality, 0.05, (count, labels)), 0, 1)
    tp = np.round(1000 * right).astype(np.int64)
    return counts_frame("e", images(count), np.stack([tp, 1000 - tp, 1000 - tp], -1))


def test_value_is_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(0)
    row = [scored(rng, 0.6), scored(rng, 0.7)]
    found = interval(row)
    assert found.value == pytest.approx((miou(row[0])[0] + miou(row[1])[0]) / 2, abs=1e-15)
    assert found.low < found.value < found.high


def test_one_seed_equals_brute_force_over_the_same_draws() -> None:
    rng = np.random.default_rng(1)
    frame = scored(rng, 0.5, count=12)
    found = resample([[frame]], draws=50)
    assert found.images == tuple(images(12))
    from harness.scoring.intervals import _entropy, _image_weights

    weights_IB = _image_weights(np.random.default_rng([0, *_entropy(found.images, 0)]), 12, 50)
    assert weights_IB.mean() == pytest.approx(1, abs=0.15)
    assert weights_IB.min() > 0
    for b in range(0, 50, 7):
        weight = pl.DataFrame({"image": found.images, "w": weights_IB[:, b]})
        weighed = frame.join(weight, on="image").group_by("class").agg(pl.col("tp", "fp", "fn").dot("w"))
        ratios = weighed.select(pl.col("tp") / pl.sum_horizontal("tp", "fp", "fn"))["tp"]
        assert found.draws_RB[0, b] == pytest.approx(ratios.mean(), abs=1e-12)


def test_interval_of_a_known_distribution() -> None:
    """Images that are all right or all wrong: Dirichlet weights give the right ones Beta(300, 100), IoU is w/(2-w)."""
    tp = (np.arange(400) % 4 != 0).astype(np.int64)
    found = interval([counts_frame("e", images(400), np.stack([tp, 1 - tp, 1 - tp], -1)[:, None])], draws=4000)
    assert found.value == 300 / 500
    for end, share in ((found.low, 0.025), (found.high, 0.975)):
        w = beta.ppf(share, 300, 100)
        assert end == pytest.approx(w / (2 - w), abs=0.005)


def test_a_weak_class_of_three_images_never_leaves_the_mean() -> None:
    """Class 0 is right everywhere; class 1, in 3 of 200 images, at 0.2: the mean is 0.6 in every draw."""
    counts = np.zeros((200, 2, 3), np.int64)
    counts[:, 0] = [100, 0, 0]
    counts[[20, 90, 170], 1] = [20, 0, 80]
    found = resample([[counts_frame("e", images(200), counts)]], classes=True)
    assert found.value_R[0] == pytest.approx(0.6)
    assert found.draws_RB[0] == pytest.approx(np.full(1000, 0.6))
    assert (found.interval(0).low, found.interval(0).high) == pytest.approx((0.6, 0.6))


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_holds_its_own_estimate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = np.zeros((200, 12, 3), np.int64)
    counts[:, 0] = np.stack([rng.integers(600, 900, 200), rng.integers(0, 100, 200), rng.integers(0, 100, 200)], -1)
    for label in range(1, 12):
        shown = rng.choice(200, rng.integers(1, 3), replace=False)
        right = rng.integers(0, 4, len(shown))
        counts[shown, label] = np.stack([right, rng.integers(0, 9, len(shown)), 100 - right], -1)
    found = interval([counts_frame("e", images(200), counts)])
    assert found.low < found.value < found.high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Classes in all, 40 % and 20 % of images, 100 pixels each: IoU of the population is p r / (p + 0.1)."""
    shares, rights = np.array([1.0, 0.4, 0.2]), np.array([0.8, 0.5, 0.3])
    truth = float((shares * rights / (shares + 0.1)).mean())
    held = 0
    for n in range(300):
        rng = np.random.default_rng(n)
        shown = rng.random((120, 3)) < shares
        tp = np.where(shown, rng.binomial(100, rng.beta(4 * rights, 4 * (1 - rights), (120, 3))), 0)
        counts = np.stack([tp, rng.binomial(100, 0.1, (120, 3)), 100 * shown - tp], -1)
        found = interval([counts_frame("e", images(120), counts)], draws=400)
        held += found.low <= truth <= found.high
    assert 0.915 <= held / 300 <= 0.98


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    same = scored(rng, 0.6)
    apart = [scored(rng, q) for q in (0.4, 0.6, 0.8)]
    one, equal, several = interval([same]), interval([same] * 3), interval(apart)
    assert (equal.low, equal.high) == pytest.approx((one.low, one.high))
    assert several.high - several.low > 5 * (one.high - one.low)


def test_draws_are_shared_and_stable() -> None:
    rng = np.random.default_rng(3)
    a, b, c = scored(rng, 0.6), scored(rng, 0.5), scored(rng, 0.7)
    alone, together = resample([[a]]), resample([[c, b], [a], [b]])
    assert (alone.draws_RB[0] == together.draws_RB[1]).all()
    shuffled = a.sample(fraction=1.0, shuffle=True, seed=1)
    assert (resample([[shuffled]]).draws_RB == alone.draws_RB).all()
    assert (resample([[a]]).draws_RB == alone.draws_RB).all()
    assert (resample([[a]], seed=1).draws_RB != alone.draws_RB).any()


def test_pairing_sees_what_single_intervals_hide() -> None:
    rng = np.random.default_rng(4)
    hard = rng.uniform(0.2, 0.8, (80, 1))
    a = scored(np.random.default_rng(5), hard + 0.03)
    b = scored(np.random.default_rng(6), hard)
    first, second, gap = interval([a]), interval([b]), difference([a], [b])
    assert first.low < second.high
    assert gap.low > 0
    assert gap.p < 0.01
    back = difference([b], [a])
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-gap.value, -gap.high, -gap.low, gap.p))


def test_equal_rows_tie() -> None:
    frame = scored(np.random.default_rng(7), 0.6)
    gap = difference([frame], [frame])
    assert (gap.value, gap.low, gap.high, gap.p) == (0.0, 0.0, 0.0, 1.0)
    assert rank([[frame], [frame], [frame]]) == [1, 1, 1]


def test_ranks_count_significantly_better_rows() -> None:
    rng = np.random.default_rng(8)
    rows: list[Row] = [[scored(rng, q)] for q in (0.5, 0.8, 0.501, 0.65, 0.8005)]
    assert rank(rows) == [4, 1, 4, 3, 1]


def test_ranks_resolve_many_rows_in_spite_of_holm() -> None:
    rng = np.random.default_rng(9)
    rows: list[Row] = [[scored(rng, 0.3 + 0.02 * n)] for n in range(25)]
    assert rank(rows) == list(range(25, 0, -1))


def test_false_alarms_stay_at_the_level() -> None:
    alarms = 0
    for n in range(100):
        rng = np.random.default_rng(100 + n)
        alarms += max(rank([[scored(rng, 0.6, 40)] for _ in range(4)], draws=400)) > 1
    assert alarms <= 14


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_classes_have_intervals_and_differences() -> None:
    rng = np.random.default_rng(10)
    quality = np.array([0.9, 0.5, 0.5, 0.3])
    a, b = scored(rng, quality), scored(rng, quality - np.array([0.0, 0.1, 0.0, 0.0]))
    found = resample([[a, a], [b, b]], classes=True)
    values = [i.value for i in found.class_intervals(0)]
    assert np.mean(values) == pytest.approx(found.value_R[0])
    gaps = found.class_differences(0, 1)
    assert [g.p < 0.01 for g in gaps] == [False, True, False, False]
    with pytest.raises(ValueError, match="without classes"):
        resample([[a]]).class_intervals(0)


def test_an_absent_class_is_left_out_and_a_rare_one_is_in_every_draw() -> None:
    counts = np.zeros((20, 3, 3), np.int64)
    counts[:, 0] = [9, 1, 0]
    counts[0, 2] = [1, 0, 1]
    found = resample([[counts_frame("e", images(20), counts)]], classes=True)
    assert found.value_R[0] == pytest.approx((0.9 + 0.5) / 2)
    assert set(np.round(found.draws_RB[0], 6)) == {0.7}
    assert math.isnan(found.class_intervals(0)[1].value)
    assert math.isnan(found.class_intervals(0)[1].low)


def test_one_image_gives_no_interval_and_no_rank() -> None:
    one = [counts_frame("e", ["a"], np.array([[[9, 1, 0]]], np.int64))]
    two = [counts_frame("e", ["a"], np.array([[[1, 9, 8]]], np.int64))]
    assert math.isnan(interval(one).low)
    assert difference(one, two).p == 1.0
    assert rank([one, two]) == [1, 1]


def test_bad_rows_are_named() -> None:
    rng = np.random.default_rng(11)
    a = scored(rng, 0.5)
    with pytest.raises(ValueError, match=r"1 differ, first 'image0079'"):
        resample([[a], [a.filter(pl.col("image") != "image0079")]])
    with pytest.raises(ValueError, match="at least one seed"):
        resample([[a], []])
    with pytest.raises(ValueError, match="more than one eval"):
        interval([pl.concat([a, a.with_columns(eval=pl.lit("f"))])])


def test_rows_of_other_true_pixels_are_not_paired() -> None:
    a = scored(np.random.default_rng(13), 0.5)
    at = (pl.col("image") == "image0007") & (pl.col("class") == 2)
    b = a.with_columns(fn=pl.when(at).then(pl.col("fn") + 1).otherwise(pl.col("fn")))
    with pytest.raises(NotPaired, match="true pixels of class 2 of image 'image0007'") as e:
        resample([[a], [a], [b]])
    assert (e.value.a, e.value.b) == (0, 2)
    assert (pairable(a, b), pairable(a, a), pairable(a, a.filter(pl.col("image") != "image0003"))) == (
        False, True, False)  # fmt: skip
    more = a.with_columns(fp=pl.col("fp") + 1)
    assert difference([a], [more]).value > 0


def test_ten_rows_take_about_a_second() -> None:
    rng = np.random.default_rng(12)
    rows = [[scored(rng, 0.5, 400, 21)] for _ in range(10)]
    start = time.process_time()
    rank(rows)
    assert time.process_time() - start < 5


def test_many_images_and_classes_take_little_memory() -> None:
    """Eight rows of 20,000 images with 4 of 81 classes each: dense counts would be 311 MB."""
    rng = np.random.default_rng(13)
    label = np.sort(rng.permuted(np.tile(np.arange(81), (20_000, 1)), axis=1)[:, :4], axis=1).reshape(-1)
    image = np.repeat(images(20_000), 4)
    rows = []
    for _ in range(8):
        tp = rng.integers(0, 1000, len(label))
        rows.append([pl.DataFrame({"image": image, "class": label, "tp": tp, "fp": 1000 - tp, "fn": 1000 - tp})])
    tracemalloc.start()
    start = time.process_time()
    resample(rows, draws=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert time.process_time() - start < 10
