"""Optuna studies made again from the store: what a study asked, what it heard, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.api.registry import registry
from harness.api.space import Space
from harness.api.spec import resolve
from harness.errors import StoreError
from harness.plan.config import migrated
from harness.store import Results, latest_runs
from harness.store.rows import json_of, phase_seconds

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution, CategoricalChoiceType
    from optuna.trial import FrozenTrial

RUNG = "rung"
"""Stage of the table `steps` under which a trial's objective at a rung stands."""


@dataclass(frozen=True)
class Rebuilt:
    """A study of the store with its trials as Optuna's; knobs that never changed are no parameters of it."""

    name: str
    method: str
    protocol: str
    sweeps: tuple[str, ...]
    keys: tuple[str, ...]
    """The run of each trial."""
    study: Study

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials in order; Optuna's own `trials` copies every one."""
        return self.study.get_trials(deepcopy=False)


def rebuilt_studies(results: Results) -> list[Rebuilt]:
    """Every study of the store in which something was searched, by name.

    Needs the tables runs, trials and steps. Raises StoreError for a run whose config is no JSON.
    """
    runs = {r["key"]: r for r in latest_runs(results.runs).iter_rows(named=True)}
    groups = results.trials.sort("study", "protocol", "trial").partition_by("study", "protocol", maintain_order=True)
    made = (rebuilt(group, runs, results.steps) for group in groups)
    return [study for study in made if study is not None]


def rebuilt(trials: pl.DataFrame, runs: Mapping[str, Mapping[str, Any]], steps: pl.DataFrame) -> Rebuilt | None:
    """The study of these rows of `trials`; None where nothing was searched or no trial left a config.

    A trial that was run several times stands for its newest run. Intermediate values stand at per cent of the run.
    """
    asked = _newest(trials.filter(pl.col("role") == "trial"), runs)
    knobs = [_knobs(runs[t["key"]]) for t in asked]
    params, distributions = _parameters(str(runs[asked[0]["key"]]["method"]) if asked else "", knobs)
    if not distributions:
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = asked[0]
    study = optuna.create_study(direction="maximize", study_name=first["study"])
    rungs = _rungs([t["key"] for t in asked], steps)
    for trial, values in zip(asked, params, strict=True):
        run = runs[trial["key"]]
        study.add_trial(_frozen(trial, run, values, distributions, rungs.get(trial["key"], {})))
    return Rebuilt(
        str(first["study"]),
        str(runs[first["key"]]["method"]),
        str(first["protocol"]),
        tuple(trials["sweep"].unique().sort()),
        tuple(t["key"] for t in asked),
        study,
    )


def _newest(trials: pl.DataFrame, runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each trial whose run the store has, in order."""
    found: dict[int, dict[str, Any]] = {}
    for row in trials.iter_rows(named=True):
        before = found.get(row["trial"])
        if row["key"] in runs and (before is None or _started(runs, before) <= _started(runs, row)):
            found[row["trial"]] = row
    return [found[n] for n in sorted(found)]


def _started(runs: Mapping[str, Mapping[str, Any]], trial: Mapping[str, Any]) -> str:
    return str(runs[trial["key"]]["started"] or "")


def _knobs(run: Mapping[str, Any]) -> dict[str, Any]:
    knobs = migrated(json_of(run, "config")).get("knobs") or {}
    if not isinstance(knobs, dict):
        raise StoreError(f"run {run['key']}: its config has knobs {knobs!r:.80}, no values by name")
    return knobs


def _parameters(
    method: str, knobs: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, BaseDistribution]]:
    """Optuna's parameters of each trial and their distributions: those of the method's space where all trials lie in
    it, else what the values span."""
    names = dict.fromkeys(k for values in knobs for k in values)
    moved = [k for k in names if len({repr(v.get(k)) for v in knobs}) > 1 and all(k in v for v in knobs)]
    space = _space(method)
    if space is not None:
        space = space.without(*(k for k in space.knobs if k not in moved))
        if space.dims and not any(space.outside(values) for values in knobs):
            return [space.params_of(values) for values in knobs], space.distributions()
    values = [{k: _choice(v[k]) for k in moved} for v in knobs]
    return values, {k: _spanned([v[k] for v in values]) for k in moved}


def _space(method: str) -> Space | None:
    name = method.rpartition("+")[2]
    target = registry().space_target(name) if name in registry().names() else None
    found: Space | None = resolve(target) if target else None
    return found


def _choice(value: Any) -> CategoricalChoiceType:
    """A value as Optuna takes it: a list as its text."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _spanned(values: Sequence[CategoricalChoiceType]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted(set(values), key=repr))
    if all(isinstance(v, int) for v in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)))
    return FloatDistribution(float(min(numbers)), float(max(numbers)))


def _rungs(keys: Sequence[str], steps: pl.DataFrame) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for row in steps.filter(pl.col("stage") == RUNG, pl.col("key").is_in(keys)).iter_rows(named=True):
        found.setdefault(row["key"], {})[int(row["step"])] = float(row["value"])
    return found


def _frozen(
    trial: Mapping[str, Any],
    run: Mapping[str, Any],
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    rungs: Mapping[int, float],
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    objective = trial["objective"]
    states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    state = states.get(trial["status"], TrialState.FAIL)
    if objective is None and state == TrialState.COMPLETE:
        state = TrialState.FAIL  # without a split to tune on nothing was heard
    total = max(1, int(run["iterations"] or 1))
    heard = {round(100 * step / total): value for step, value in rungs.items()}
    if state == TrialState.PRUNED and objective is not None:
        heard[round(100 * float(trial["reached"] or 0.0))] = float(objective)
    attributes = {"trial": trial["trial"], "key": trial["key"], "seed": run["seed"], "status": trial["status"]}
    made = create_trial(
        state=state, value=objective if state == TrialState.COMPLETE else None, params=params,
        distributions=distributions, intermediate_values=dict(sorted(heard.items())), user_attrs=attributes,
    )  # fmt: skip
    # The same store gives the same study: times are the run's, not those of today.
    begun = datetime.fromisoformat(run["started"]).replace(tzinfo=None) if run["started"] else datetime(1970, 1, 1)
    spent = timedelta(seconds=sum(phase_seconds(run).values()))
    made.datetime_start, made.datetime_complete = begun, begun + spent
    return made
