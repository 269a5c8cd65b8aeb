"""The loading suite compares every byte with the field's loader, and notices where one differs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.suites import loading


def test_both_sides_make_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "IMAGES", 8)
    loading.folder.cache_clear()
    cases = {case.name: case for case in loading.cases(quick=True)}
    assert list(cases) == ["decode", "batch, first epoch", "batch, later epochs"]
    for case in cases.values():
        assert case.equal() == "all bytes equal"
    one, other = cases["batch, later epochs"].reference(), cases["batch, later epochs"].ours()
    other[0][0][0, 0, 0, 0] += 1
    agree = cases["batch, later epochs"].agree
    assert agree is not None
    with pytest.raises(AssertionError, match="images differ"):
        agree(one, other)
    loading.folder.cache_clear()


def test_generated_photos_cost_what_photos_cost() -> None:
    """Neither flat nor noise: at quality 90 between 30 and 130 kB, as 500x375 photos have."""
    stream = io.BytesIO()
    Image.fromarray(loading.photo(3)).save(stream, "JPEG", quality=90)
    assert 30_000 < len(stream.getvalue()) < 130_000
    assert np.ptp(loading.photo(3)) > 150
