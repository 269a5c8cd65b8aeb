"""How dense sparse labels are, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.datasets import open_dataset
from harness.datasets.weak.density import density, density_text, read_text, text_of


def test_share_and_marks_by_hand():
    """Of 20 and 5 pixels 4 and 0 are labelled: two touching of one label, one of another beside them, one apart."""
    first = np.full((4, 5), 255, np.uint8)
    first[0, 0], first[1, 1], first[0, 1], first[3, 4] = 1, 1, 2, 1
    share, marks = density([first, np.full((1, 5), 255, np.uint8)])
    assert share == pytest.approx(4 / 25)
    assert marks == pytest.approx(3 / 2)
    assert density([]) == (0.0, 0.0)


def test_words_of_clicks():
    dataset = open_dataset("shapes", options={"n_train": "5", "n_val": "1", "n_test": "1"})
    text = density_text(dataset, dataset.ids("train"), "clicks20")
    assert text.startswith("0.22 % of pixels, ")
    assert float(text.split()[4]) == pytest.approx(20, abs=1)
    assert density_text(dataset, dataset.ids("train"), "points") != text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0231, "2.31 % of pixels"),
        (0.001, "0.10 % of pixels"),
        (0.000432, "0.043 % of pixels"),
        (0.0, "0 % of pixels"),
    ],
)
def test_two_digits_at_least_and_back(share, text):
    assert text_of(share, 2.8) == f"{text}, 2.8 marks an image"
    assert read_text(text_of(share, 2.8)) == pytest.approx((share, 2.8), rel=0.01)
    assert read_text("a handful") is None
