"""Early stopping of one study's trials: asynchronous successive halving (ASHA, Li et al. 2020), without Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.plan.studies import Study

REDUCTION = 2
"""A rung lets the better half pass, and lies at twice the share of the rung before."""


class Asha:
    """Rungs of one study and what its trials scored there.

    A trial that scores below the median of those that came to the rung before it is stopped; `protected`
    trials are compared with, never stopped. Same rule as Ray Tune's ASHAScheduler with one bracket.
    """

    def __init__(
        self,
        first_rung: float,
        protected: frozenset[int] = frozenset({0}),
        *,
        ends: Sequence[float] = (),
        blind: Sequence[tuple[float, float]] = (),
    ):
        """`first_rung`: share of T in (0,1). `ends`: further rungs from it on. `blind`: spans without rungs inside."""
        if not 0 < first_rung < 1:
            raise ValueError(f"the first rung must lie in (0,1), got {first_rung}")
        count = math.ceil(math.log(1 / first_rung, REDUCTION) - 1e-9)
        doubled = (round(first_rung * REDUCTION**k, 6) for k in range(count))
        seen = [r for r in doubled if not any(low < r < high for low, high in blind)]
        self.rungs = tuple(sorted({*seen, *(round(e, 6) for e in ends if e >= first_rung)}))
        self._scores: dict[float, dict[int, float]] = {rung: {} for rung in self.rungs}
        self._protected = protected

    @classmethod
    def of(cls, study: Study) -> Asha:
        """The rungs of a study."""
        return cls(study.first_rung, ends=study.ends, blind=study.blind)

    def refill(self, trial: int, scores: Mapping[float, float]) -> None:
        """Takes what `trial` scored at rungs, by share of T, before this process began: it is decided on already."""
        for reached, objective in scores.items():
            if rung := self._rung(reached):
                self._scores[rung].setdefault(trial, objective)

    def scored(self, trial: int, reached: float) -> bool:
        """Whether the rung at this share has a score of `trial`."""
        rung = self._rung(reached)
        return rung is not None and trial in self._scores[rung]

    def goes_on(self, trial: int, reached: float, objective: float) -> bool:
        """Whether `trial` goes on after it scored `objective` at share `reached` of T."""
        rung = self._rung(reached)
        if rung is None or trial in self._scores[rung]:
            return True
        scores = self._scores[rung]
        if not math.isfinite(objective):
            return trial in self._protected
        cutoff = np.percentile(list(scores.values()), 100 * (1 - 1 / REDUCTION)) if scores else -math.inf
        scores[trial] = objective
        return objective >= cutoff or trial in self._protected

    def _rung(self, reached: float) -> float | None:
        """The last rung that a trial has passed."""
        return max((rung for rung in self.rungs if reached >= rung - 1e-9), default=None)
