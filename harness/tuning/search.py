"""Which settings a study tries: Optuna's TPE, or quasi-random rules. No Ray here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.api.space import Space
from harness.plan import studies
from harness.plan.studies import Outcome

if TYPE_CHECKING:
    from optuna import Study

STARTUP_TRIALS = 4
"""Random trials before TPE starts; budgets are 10 to 20, so Optuna's default of 10 would be most of it."""


class Search(Protocol):
    """Proposes knob values by trial number; hears how trials ended."""

    def ask(self, trial: int, knobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Values of the searched knobs for `trial`: the given ones, else proposed. Trial 0 has the preset's."""
        ...

    def tell(self, trial: int, outcome: Outcome) -> None:
        """How an asked trial ended."""
        ...


def make_search(study: studies.Study) -> Search:
    """The search that the study asks for."""
    if study.space is None or study.budget == 1:
        return Preset()
    if study.search == "rules":
        return Rules(study.space, study.preset_knobs, study.seeds[0])
    return Tpe(study.space, study.preset_knobs, study.seeds[0])


class Preset:
    """Nothing is searched."""

    def ask(self, trial: int, knobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """No searched knobs."""
        return {}

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Nothing to learn."""


class Rules:
    """Sobol rows through the space: trial i depends on (seed, i) alone; row i-1, since trial 0 is the preset."""

    def __init__(self, space: Space, preset: Mapping[str, Any], seed: int):
        self._space, self._preset, self._seed = space, {k: preset[k] for k in space.knobs}, seed

    def ask(self, trial: int, knobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The setting of `trial`."""
        if trial == 0:
            return dict(self._preset)
        return self._space.from_unit(sobol_row(self._seed, trial - 1))

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Nothing to learn."""


class Tpe:
    """Optuna's TPE. A done trial counts by its value; a pruned one as worse than any done one.

    A proposal is a pure function of (seed, trial number, settings and outcomes so far): an in-memory study is
    rebuilt for it, so that an interrupted search goes on as if it had not been. Open trials repel new ones
    (Optuna's constant liar); a failed trial teaches nothing. Knobs are drawn together (multivariate): both are said,
    since Optuna has changed its defaults before.
    """

    def __init__(self, space: Space, preset: Mapping[str, Any], seed: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space, self._preset, self._seed = space, {k: preset[k] for k in space.knobs}, seed
        self._params: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, Outcome] = {}

    def ask(self, trial: int, knobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The setting of `trial`; given `knobs` that left the space are returned, but not learnt from."""
        given = self._preset if trial == 0 else knobs
        chosen = {k: given[k] for k in self._space.knobs} if given is not None else self._propose(trial)
        if not self._space.outside(chosen):
            self._params[trial] = self._space.params_of(chosen)
        return chosen

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Learns from a closed trial."""
        self._outcomes[trial] = outcome

    def history(self) -> Study:
        """Everything asked and told as a fresh Optuna study."""
        study = self._optuna.create_study(direction="maximize")
        distributions = self._space.distributions()
        for trial, params in sorted(self._params.items()):
            study.add_trial(
                self._optuna.trial.create_trial(
                    params=params, distributions=distributions, **self._state(self._outcomes.get(trial))
                )
            )
        return study

    def _propose(self, trial: int) -> dict[str, Any]:
        study = self.history()
        seed = int(np.random.SeedSequence([self._seed, trial]).generate_state(1)[0])
        study.sampler = self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
        )
        return self._space.suggest(study.ask())

    def _state(self, outcome: Outcome | None) -> dict[str, Any]:
        states = self._optuna.trial.TrialState
        if outcome is None:
            return {"state": states.RUNNING}
        if outcome.status == "done":
            return {"state": states.COMPLETE, "value": outcome.objective}
        if outcome.status == "pruned" and outcome.objective is not None:
            return {"state": states.PRUNED, "intermediate_values": {round(100 * outcome.reached): outcome.objective}}
        return {"state": states.FAIL}


COLUMNS = 64
"""Drawn for every space, however small: the scrambling depends on the number of columns."""


def sobol_row(seed: int, index: int) -> NDArray[np.float64]:
    """Row `index` (from 0) of the scrambled Sobol sequence of `seed`: (64,) numbers in [0,1).

    A space of d dimensions uses the first d columns. Raises ValueError for a negative index.
    """
    from scipy.stats import qmc

    if index < 0:
        raise ValueError(f"index {index} is negative")
    sequence = qmc.Sobol(COLUMNS, scramble=True, rng=seed)
    if index:
        sequence.fast_forward(index)
    with warnings.catch_warnings():
        # One row at a time is not a power of two: scipy warns of lost balance, the sequence is the same.
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(sequence.random(1)[0])
