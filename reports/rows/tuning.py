"""What tuning gave: the default beside the tuned setting, the best of k trials, the knobs that mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.plan.rebuilt import Rebuilt, rebuilt
from harness.plan.studies import preference
from harness.scoring.intervals import Difference, Interval
from harness.store import Results
from reports.rows.comparing import counts_of
from reports.rows.ranking import Quantity, resampled
from reports.rows.row import Row, Scored
from reports.rows.studies import Runs
from reports.rows.trials import chosen_of, trials_of

PLATEAU = 0.01
"""One point of mIoU: settings that lose less are as good as the best."""
ENOUGH_TRIALS = 8
ENOUGH_SEEDS = 2
DEFAULT = 0
"""Number of the trial that has the preset's values."""


@dataclass(frozen=True)
class Gain:
    """Trial 0 beside the chosen one, on the reported split, both with the seed of the trials; shares of 1."""

    default: Interval
    tuned: Interval
    gain: Difference
    trial: int


@dataclass(frozen=True)
class Knob:
    """What a study says of one searched knob."""

    name: str
    best: Any
    """Its value in the best trial."""
    low: float
    high: float
    """Ends of the one-point plateau: the values of trials that lie within PLATEAU of the best; NaN for choices."""
    width: float
    """Of the plateau, as a share of what was tried, in [0,1]."""
    trials: int
    """Trials on the plateau."""
    effect: float
    """Mean objective of the upper half of its values minus that of the lower; NaN for choices."""


@dataclass(frozen=True)
class Sensitivity:
    """Knobs of a study, and how far its chosen setting moves from seed to seed (highest minus lowest objective)."""

    knobs: tuple[Knob, ...]
    noise: float
    seeds: int


def study_of(row: Row, results: Results, runs: Runs) -> Rebuilt | None:
    """The row's study as Optuna's; None where nothing was searched."""
    mine = results.trials.filter(pl.col("study") == row.study, pl.col("key").is_in(row.spent))
    return rebuilt(mine.filter(pl.col("protocol") == row.protocol), runs, results.steps)


def gain_of(row: Row, quantity: Quantity, results: Results, weights: str) -> Gain | None:
    """None where trial 0 or the chosen trial was not scored at this quantity on the reported split."""
    rule = quantity.rule or row.protocol
    found = trials_of(row, quantity, rule, results, weights)
    default = next((t for t in found if t.number == DEFAULT), None)
    if default is None:
        return None
    tuned = chosen_of(found)
    both = [Scored((t.eval,), (), 0, f"trial {t.number} of {row.study}") for t in (default, tuned)]
    drawn = resampled(both, counts_of(results, both))
    return Gain(drawn.interval(0), drawn.interval(1), drawn.difference(1, 0), tuned.number)


def best_of(values: Sequence[float]) -> list[float]:
    """The expected highest of k of these values, k = 1 .. n, drawn without replacement (Dodge et al. 2019, unbiased).

    The i-th smallest is the highest of k in C(i-1,k-1) of C(n,k) draws.
    """
    ordered, n = sorted(values), len(values)
    return [
        sum(v * math.comb(i, k - 1) for i, v in enumerate(ordered) if i >= k - 1) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def objectives(study: Rebuilt) -> list[float]:
    """Objectives of the finished trials, in order; shares of 1."""
    return [float(t.value) for t in study.trials if t.value is not None]


def sensitivity_of(row: Row, study: Rebuilt, results: Results, runs: Runs) -> Sensitivity | str:
    """The knobs of a study; in words, without its name, what is lacking where trials or seeds are too few to tell."""
    done = [t for t in study.trials if t.value is not None]
    finals = _finals(row, results, runs)
    if len(done) < ENOUGH_TRIALS or len(finals) < ENOUGH_SEEDS:
        return (
            f"{len(done)} finished trial{'s' * (len(done) != 1)} and {len(finals)} "
            f"seed{'s' * (len(finals) != 1)} of the chosen setting; what moves the score more than seeds do needs "
            f"{ENOUGH_TRIALS} trials and {ENOUGH_SEEDS} seeds or more"
        )
    values = {t.number: float(t.value or 0.0) for t in done}
    best = max(done, key=lambda t: preference(t.value, t.number))
    names = sorted({name for t in done for name in t.params})
    knobs = tuple(_knob(name, {t.number: t.params[name] for t in done}, values, best.number) for name in names)
    return Sensitivity(knobs, max(finals) - min(finals), len(finals))


def _finals(row: Row, results: Results, runs: Runs) -> list[float]:
    """The objective of the chosen setting with each of its seeds."""
    mine = results.trials.filter(pl.col("key").is_in(row.keys), pl.col("objective").is_not_null())
    by_seed = {runs[k]["seed"]: v for k, v in mine.select("key", "objective").iter_rows() if k in runs}
    return list(by_seed.values())


def _knob(name: str, setting: Mapping[int, Any], values: Mapping[int, float], best: int) -> Knob:
    near = [n for n, v in values.items() if values[best] - v <= PLATEAU]
    numbers = [v for v in setting.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(setting):
        chosen = {repr(setting[n]) for n in near}
        width = len(chosen) / len({repr(v) for v in setting.values()})
        return Knob(name, setting[best], math.nan, math.nan, width, len(near), math.nan)
    low, high = min(setting[n] for n in near), max(setting[n] for n in near)
    span = max(numbers) - min(numbers)
    middle = sorted(numbers)[len(numbers) // 2]
    above = [values[n] for n, v in setting.items() if v >= middle]
    below = [values[n] for n, v in setting.items() if v < middle]
    effect = sum(above) / len(above) - sum(below) / len(below) if above and below else math.nan
    return Knob(name, setting[best], low, high, (high - low) / span if span else 1.0, len(near), effect)
