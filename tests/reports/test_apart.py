"""Names of rows that look the same: what their runs were told differently, in words where that is short."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixture_store import ToyStore

from harness.store import load
from reports.rows.row import Filters
from reports.rows.rows import rows_of


def titles(toy: ToyStore, *configs: dict[str, Any], method: str = "fsr", trials: int = 1) -> list[str]:
    """Of rows of these configs, in the order of their studies."""
    for n, config in enumerate(configs):
        study = f"{method}-tags-{'abcdef'[n] * 8}"
        for trial in range(trials):
            key = f"{'abcdef'[n]}{trial}"
            toy.run(key, method, study=study, trial=trial, config=json.dumps({"method": method, **config}))
            toy.trial(key, study, trial=trial)
        toy.trial(f"{'abcdef'[n]}0", study, role="final")
        toy.evaluate(f"{'abcdef'[n]}0", "segmentation", 10)
    return [row.title for row in sorted(rows_of(load(toy.root), Filters()), key=lambda row: row.study)]


def test_words_that_differ_are_the_name(toy: ToyStore) -> None:
    found = titles(toy, {"precision": "fp32", "crop": 96}, {"precision": "bf16-nograd", "crop": 96})
    assert found == ["fsr (precision fp32)", "fsr (precision bf16-nograd)"]


def test_pinned_knobs_that_differ_are_the_name(toy: ToyStore) -> None:
    one, other = {"mask_ratio": 0.3, "lr": 1e-3, "scales": [1.0]}, {"mask_ratio": 0.4, "lr": 1e-3, "scales": [1.0, 0.5]}
    found = titles(toy, {"knobs": one}, {"knobs": other})
    assert found == ["fsr (mask_ratio 0.3, scales 1)", "fsr (mask_ratio 0.4, scales 1 0.5)"]


def test_knobs_of_a_base_have_its_name(toy: ToyStore) -> None:
    own = {"w": True}
    found = titles(
        toy, {"knobs": own, "base_knobs": {"w": 1}}, {"knobs": own, "base_knobs": {"w": 2}}, method="cam+fsae"
    )
    assert found == ["cam+fsae (cam.w 1)", "cam+fsae (cam.w 2)"]


@pytest.mark.parametrize(
    "configs",
    [
        ({"crop": 96}, {"crop": 96}),
        ({"crop": 96, "precision": "fp32"}, {"crop": 64, "precision": "fp32"}, {"crop": 64, "precision": "fp32"}),
        ({"crop": 1, "batch": 1, "group": 1}, {"crop": 2, "batch": 2, "group": 2}),
        ({"knobs": {"a": 1}}, {"knobs": {"a": 1, "added": 2}}),
        ({}, {"crop": 96}),
        ({"knobs": [1], "base_knobs": 2}, {"knobs": {"a": 1}, "base_knobs": None}),
    ],
    ids=["nothing differs", "two are equal", "too much differs", "a later knob", "one does not say", "no knobs at all"],
)
def test_else_the_end_of_the_study_is(toy: ToyStore, configs: tuple[dict[str, Any], ...]) -> None:
    assert titles(toy, *configs) == [f"fsr ({letter * 8})" for letter in "abcdef"[: len(configs)]]


def test_knobs_that_were_searched_are_no_name(toy: ToyStore) -> None:
    found = titles(toy, {"knobs": {"a": 1}}, {"knobs": {"a": 2}}, trials=2)
    assert found == ["fsr (aaaaaaaa)", "fsr (bbbbbbbb)"]
