"""Which images are shown, by hand: IoU of an image whose classes swap n pixels is (80-n)/(80+n) and (40-n)/(40+n)."""

from __future__ import annotations

import pytest
from fixture_store import IMAGES, ToyStore, swapped_miou

from harness.store import load
from reports.rows.examples import choose, per_image


def chosen(toy: ToyStore, *swaps: list[int]) -> dict[str, tuple[str, float]]:
    evals = []
    for n, some in enumerate(swaps):
        toy.run(f"k{n}", f"m{n}")
        evals.append(toy.evaluate(f"k{n}", "segmentation", some))
    counts = {str(k[0]): f for k, f in load(toy.root).counts.partition_by("eval", as_dict=True).items()}
    return {e.why: (e.image, 100 * e.mean) for e in choose(evals, counts)}


def test_best_median_worst_and_the_widest_that_is_left(toy: ToyStore) -> None:
    # Means rank image 0 best, 5 worst; rows agree but for image 4, then for image 0.
    found = chosen(toy, [2, 10, 12, 14, 2, 30], [6, 10, 12, 14, 30, 30])
    assert found["best"] == (IMAGES[0], pytest.approx((swapped_miou(2) + swapped_miou(6)) / 2))
    assert found["worst"] == (IMAGES[5], pytest.approx(swapped_miou(30)))
    assert found["median"][0] == IMAGES[2]
    assert found["largest spread"] == (IMAGES[4], pytest.approx((swapped_miou(2) + swapped_miou(30)) / 2))


def test_of_equals_the_first_by_name_and_each_image_once(toy: ToyStore) -> None:
    found = chosen(toy, [10] * 6)
    assert {why: image for why, (image, _) in found.items()} == {
        "best": IMAGES[0], "median": IMAGES[2], "worst": IMAGES[5]}  # fmt: skip


def test_an_images_score_is_of_its_own_classes(toy: ToyStore) -> None:
    toy.run("k", "m")
    name = toy.evaluate("k", "cam", [0, 1, 2, 3, 4, 5], rule="fixed")
    counts = load(toy.root).counts
    table = {i: v for _, i, v in per_image([name], {name: counts}).iter_rows()}
    assert [100 * table[i] for i in IMAGES] == pytest.approx([swapped_miou(n) for n in range(6)])


def test_nothing_scored_shows_nothing() -> None:
    assert choose([], {}) == []
