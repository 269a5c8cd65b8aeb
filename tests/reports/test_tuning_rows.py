"""Gains over the default, best of k, plateaus: by hand."""

from __future__ import annotations

import json

import pytest
from fixture_store import ToyStore, swapped_miou

from harness.plan.rebuilt import rebuilt_studies
from harness.store import load
from reports.rows.ranking import Quantity
from reports.rows.row import Filters
from reports.rows.rows import rows_of
from reports.rows.studies import by_key
from reports.rows.tuning import Sensitivity, best_of, gain_of, sensitivity_of


def tuned(toy: ToyStore, objectives: list[float], *, seeds: int) -> None:
    """A study of a knob 0, 1, 2, ...; the best trial is run with all seeds."""
    best = objectives.index(max(objectives))
    for n, objective in enumerate(objectives):
        config = json.dumps({"knobs": {"x": float(n)}, "class_names": ["background", "disc"]})
        toy.trial(toy.run(f"t{n}", "m", trial=n, config=config, study="m"), "m", trial=n, objective=objective)
        toy.evaluate(f"t{n}", "segmentation", 20 - n)
    for seed in range(1, seeds):
        config = json.dumps({"knobs": {"x": float(best)}, "class_names": ["background", "disc"]})
        toy.run(f"f{seed}", "m", seed=seed, trial=best, config=config, study="m")
        toy.trial(f"f{seed}", "m", trial=best, role="final", objective=max(objectives) - 0.004 * seed)
        toy.evaluate(f"f{seed}", "segmentation", 20 - best)


def told(toy: ToyStore) -> Sensitivity | str:
    results = load(toy.root)
    (row,) = rows_of(results, Filters())
    (study,) = rebuilt_studies(results)
    return sensitivity_of(row, study, results, by_key(results.runs))


def test_best_of_k_by_hand() -> None:
    # Of 1, 2, 3 the pairs have 2, 3, 3 as their highest.
    assert best_of([3.0, 1.0, 2.0]) == pytest.approx([2.0, 8 / 3, 3.0])
    assert best_of([0.4]) == [0.4]


def test_the_gain_is_the_chosen_trial_minus_trial_0(toy: ToyStore) -> None:
    tuned(toy, [0.3, 0.5, 0.4], seeds=1)
    results = load(toy.root)
    (row,) = rows_of(results, Filters())
    gain = gain_of(row, Quantity("segmentation", "none"), results, "student")
    assert gain is not None
    assert gain.trial == 1
    assert 100 * gain.gain.value == pytest.approx(swapped_miou(19) - swapped_miou(20))
    assert 100 * gain.tuned.value == pytest.approx(swapped_miou(19))


def test_a_plateau_is_what_loses_less_than_a_point(toy: ToyStore) -> None:
    tuned(toy, [0.30, 0.32, 0.501, 0.505, 0.51, 0.45, 0.40, 0.35], seeds=2)
    found = told(toy)
    assert isinstance(found, Sensitivity)
    (knob,) = found.knobs
    assert (knob.name, knob.best, knob.low, knob.high, knob.trials) == ("x", 4.0, 2.0, 4.0, 3)
    assert knob.width == pytest.approx(2 / 7)
    assert knob.effect == pytest.approx((0.51 + 0.45 + 0.40 + 0.35) / 4 - (0.30 + 0.32 + 0.501 + 0.505) / 4)
    assert (found.noise, found.seeds) == (pytest.approx(0.004), 2)


@pytest.mark.parametrize(("trials", "seeds"), [(7, 2), (8, 1)])
def test_too_few_trials_or_seeds_are_said_in_words(toy: ToyStore, trials: int, seeds: int) -> None:
    tuned(toy, [0.3 + 0.01 * n for n in range(trials)], seeds=seeds)
    found = told(toy)
    assert isinstance(found, str)
    assert f"{trials} finished trials and {seeds} seed" in found
