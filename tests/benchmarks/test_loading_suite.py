"""The loading suite compares every byte with the field's loader, and notices where one differs."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.run import line
from benchmarks.suites import loading
from benchmarks.timing import Timed


def test_both_sides_make_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "IMAGES", 8)
    monkeypatch.delenv("WSSS_REAL_DATA", raising=False)
    loading.folder.cache_clear()
    loading.warm.cache_clear()
    cases = {case.name: case for case in loading.cases(quick=True)}
    assert list(cases) == [
        *("decode", "image in memory", "label in memory"),
        *("batch, first epoch", "batch, later epochs", "two views, first epoch", "two views, later epochs"),
    ]
    for case in cases.values():
        assert case.equal() == "all bytes equal"
        assert case.images == 8
    assert [len(batch) for batch in cases["two views, first epoch"].ours()] == [3]
    one, other = cases["batch, later epochs"].reference(), cases["batch, later epochs"].ours()
    other[0][0][0, 0, 0, 0] += 1
    agree = cases["batch, later epochs"].agree
    assert agree is not None
    with pytest.raises(AssertionError, match="number 0 differs in part 0"):
        agree(one, other)
    pixels = cases["decode"].ours()
    with pytest.raises(AssertionError, match="number 7 differs in part 0"):
        loading.same(pixels, [*pixels[:7], pixels[0]])
    loading.folder.cache_clear()
    loading.warm.cache_clear()


def test_the_rows_name_images_a_second_of_both_sides() -> None:
    timed = Timed("decode", "", "all bytes equal", 1, 0.5, 0.25, 2.0, 2.0, 1.6, images=100)
    assert timed.rates == (200, 400)
    assert "200 and 400 images a second of one core; all bytes equal" in line("loading", timed)
    assert "images a second" not in line("loading", replace(timed, images=0))


def test_generated_photos_cost_what_photos_cost() -> None:
    """Neither flat nor noise: at quality 90 between 30 and 130 kB, as 500x375 photos have."""
    stream = io.BytesIO()
    Image.fromarray(loading.photo(3)).save(stream, "JPEG", quality=90)
    assert 30_000 < len(stream.getvalue()) < 130_000
    assert np.ptp(loading.photo(3)) > 150
