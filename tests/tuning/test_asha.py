"""Early stopping: rungs, and equality with Ray Tune's own ASHA."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.tuning.asha import Asha


@pytest.mark.parametrize(
    ("first", "rungs"),
    [(0.3, (0.3, 0.6)), (0.25, (0.25, 0.5)), (0.5, (0.5,)), (0.9, (0.9,)), (0.1, (0.1, 0.2, 0.4, 0.8))],
)
def test_rungs_double_and_end_before_the_run(first: float, rungs: tuple[float, ...]) -> None:
    assert Asha(first).rungs == rungs


def test_median_rule_hand_computed() -> None:
    asha = Asha(0.3, protected=frozenset())
    assert asha.goes_on(1, 0.3, 0.5)
    assert not asha.goes_on(2, 0.3, 0.4)  # Below .5.
    assert asha.goes_on(3, 0.3, 0.45)  # The median of .5 and .4.
    assert not asha.goes_on(4, 0.3, 0.44)  # Below the median .45.
    assert asha.goes_on(1, 0.3, 0.0)  # Reported before: decided.
    assert asha.goes_on(1, 0.61, 0.1)  # First at the second rung.
    assert not asha.goes_on(3, 0.61, 0.09)


def test_trial_zero_is_compared_with_and_never_stopped() -> None:
    asha = Asha(0.5)
    assert asha.goes_on(1, 0.5, 0.9)
    assert asha.goes_on(0, 0.5, 0.1)
    assert asha.goes_on(2, 0.5, 0.5)  # The median of .9 and .1.
    assert not asha.goes_on(3, 0.5, 0.4)


def test_reports_before_the_first_rung_decide_nothing() -> None:
    asha = Asha(0.5)
    assert asha.goes_on(1, 0.49, 0.0)
    assert asha.goes_on(2, 0.49, -1.0)


def test_a_value_that_is_not_finite_stops_and_is_not_compared_with() -> None:
    asha = Asha(0.5)
    assert not asha.goes_on(1, 0.5, math.nan)
    assert asha.goes_on(0, 0.5, math.nan)
    assert asha.goes_on(2, 0.5, -5.0)


@pytest.mark.parametrize("first", [0.0, 1.0, -0.1])
def test_senseless_rungs_are_refused(first: float) -> None:
    with pytest.raises(ValueError):
        Asha(first)


def test_same_decisions_as_ray() -> None:
    """200 trials in random order of reports against Ray Tune's bracket with the same rungs."""
    from ray.tune.schedulers.async_hyperband import _Bracket

    class Trial:
        def __init__(self, trial_id: int):
            self.trial_id = trial_id

    rng = np.random.default_rng(0)
    ours, theirs = Asha(0.125, protected=frozenset()), _Bracket(12.5, 99.0, 2, 0)
    assert sorted(r for r, _ in theirs._rungs) == [100 * r for r in ours.rungs]
    alive = dict.fromkeys(range(200), 0)
    stopped = 0
    while alive:
        trial = int(rng.choice(list(alive)))
        rung = ours.rungs[alive[trial]]
        score = float(rng.normal())
        goes_on = ours.goes_on(trial, rung, score)
        assert goes_on == (theirs.on_result(Trial(trial), 100 * rung, score) == "CONTINUE")
        stopped += not goes_on
        alive[trial] += 1
        if not goes_on or alive[trial] == len(ours.rungs):
            del alive[trial]
    assert 100 < stopped < 190
