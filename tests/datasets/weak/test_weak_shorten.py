"""Shorter strokes: the self-checks of sparse_baselines.md 5.3."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from harness.datasets.weak.shorten import middle, shorten

BENT = [(10, 10), (40, 10), (40, 50), (20, 50)]


def test_self_check_1_a_bent_line():
    assert shorten(BENT, 0.5).tolist() == [[32.5, 10], [40, 10], [40, 47.5]]
    assert shorten(BENT, 0.5, released=True).tolist() == [[32.5, 10], [40, 47.5]]
    assert shorten(BENT, 1.0).tolist() == [list(map(float, p)) for p in BENT]
    assert shorten(BENT, 0.0).tolist() == [[40.0, 25.0]]


def test_self_check_2_a_straight_line_and_a_point():
    line = [(5, 60), (65, 60)]
    assert shorten(line, 0.5).tolist() == [[20, 60], [50, 60]]
    assert shorten(line, 0.5, released=True).tolist() == [[20, 60]]
    assert shorten(line, 0.0).tolist() == [[35, 60]]
    assert shorten([(7, 8)], 0.5).tolist() == [[7, 8]]
    assert shorten([(7, 8)], 0.5, released=True).shape == (0, 2)
    assert shorten([(7, 8), (7, 8)], 1.0).tolist() == [[7, 8]]


def test_the_published_class_where_cuts_meet_vertices():
    """GatedCRF's ScribblesShrink: a lower cut on a vertex has it twice, an upper one on the lower's own segment counts
    where that begins the segment, and a ratio of 1 changes nothing."""
    stairs = [(0, 0), (10, 0), (30, 0), (40, 0)]
    assert shorten(stairs, 0.5, released=True).tolist() == [[10, 0], [10, 0], [30, 0]]
    assert shorten(stairs, 0.5).tolist() == [[10, 0], [30, 0]]
    assert shorten([(0, 0), (10, 0), (40, 0)], 0.5, released=True).tolist() == [[10, 0], [30, 0]]
    assert shorten([(0, 0), (30, 0), (40, 0)], 0.5, released=True).tolist() == [[10, 0], [30, 0]]
    assert shorten([(5, 5), (5, 5), (25, 5)], 0.5, released=True).tolist() == [[10, 5]]
    for line in (BENT, stairs, [(7, 8)]):
        assert shorten(line, 1.0, released=True).tolist() == [list(map(float, p)) for p in line]


def test_self_check_3_a_path_of_cells():
    assert list(middle(range(10), 0.5)) == [2, 3, 4, 5, 6]
    assert list(middle(range(10), 0.3)) == [3, 4, 5]
    assert list(middle(range(10), 0.0)) == [4]
    assert list(middle(range(1), 0.0)) == [0]


@pytest.mark.parametrize("n", [1, 2, 5, 10, 23])
def test_shorter_paths_lie_in_longer_ones(n):
    kept = [set(middle(range(n), ratio)) for ratio in (0, 0.3, 0.5, 0.8, 1)]
    assert all(a <= b for a, b in pairwise(kept))
    assert kept[-1] == set(range(n))


def test_arc_lengths_are_the_share_asked_for():
    rng = np.random.default_rng(0)
    line = rng.uniform(0, 100, (9, 2))
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    for ratio in (0.1, 0.5, 0.8):
        short = shorten(line, ratio)
        assert np.linalg.norm(np.diff(short, axis=0), axis=1).sum() == pytest.approx(ratio * length)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_what_is_no_ratio_is_refused(ratio):
    with pytest.raises(ValueError, match="outside"):
        shorten(BENT, ratio)
    with pytest.raises(ValueError, match="outside"):
        middle([1, 2], ratio)


def test_what_is_no_line_is_refused():
    with pytest.raises(ValueError, match="polyline"):
        shorten([], 0.5)
    with pytest.raises(ValueError, match="empty path"):
        middle([], 0.5)
