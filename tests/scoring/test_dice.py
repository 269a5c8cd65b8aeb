"""Dice as a query over counts, by hand."""

import numpy as np
import polars as pl
import pytest

from harness.scoring.frames import counts_frame
from harness.scoring.intervals import resample
from harness.scoring.metrics import dice, dice_array, mdice_array


def test_dice_by_hand() -> None:
    counts_K3 = np.array([[90, 5, 5], [10, 5, 5], [0, 0, 0], [0, 4, 6]])
    assert dice_array(counts_K3)[[0, 1, 3]] == pytest.approx([180 / 190, 20 / 30, 0.0])
    assert np.isnan(dice_array(counts_K3)[2])
    assert mdice_array(counts_K3) == pytest.approx((20 / 30 + 0) / 2)


def test_query_and_resampling_agree_with_the_array() -> None:
    rng = np.random.default_rng(0)
    counts_IK3 = rng.integers(1, 50, (7, 4, 3))
    frame = counts_frame("e", [f"i{i}" for i in range(7)], counts_IK3)
    whole = counts_IK3.sum(0)
    table = dice(frame)
    assert table["dice"].to_list() == pytest.approx(dice_array(whole).tolist())
    assert table.columns == ["eval", "class", "tp", "fp", "fn", "dice"]
    drawn = resample([[frame]], classes=True, measure="dice")
    found = drawn.interval(0)
    assert found.value == pytest.approx(float(mdice_array(whole)))
    assert found.low < found.value < found.high
    assert [i.value for i in drawn.class_intervals(0)] == pytest.approx(dice_array(whole).tolist())


def test_absent_classes_are_left_out() -> None:
    frame = pl.DataFrame({"eval": ["e"], "image": ["i"], "class": [2], "tp": [0], "fp": [0], "fn": [0]})
    assert dice(frame).is_empty()
