"""One study while it runs: which trial comes next, which have closed, which config was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.plan.studies import ClosedTrial, Outcome, Record, Role, Study, preference
from harness.tuning.asha import Asha
from harness.tuning.search import make_search


@dataclass(frozen=True)
class PlannedTrial:
    """One run of a study's budget: a trial or a final, with all its knob values."""

    state: StudyState = field(repr=False)
    trial: int
    role: Role
    seed: int
    knobs: Mapping[str, Any]
    stored: ClosedTrial | None = None
    """What closed it in an earlier sweep."""

    @property
    def prunable(self) -> bool:
        """Whether ASHA may stop it, and so whether a pruned row closes it."""
        return self.role == "trial" and self.trial > 0 and self.state.asha is not None


class StudyState:
    """The order of one study: open trials of the store first, then new ones; finals when all have closed."""

    def __init__(self, study: Study, stored: Sequence[ClosedTrial], points: Mapping[int, Mapping[str, Any]]):
        """`stored`: closed trials of the store; `points`: settings of interrupted ones."""
        self.study = study
        self.search = make_search(study)
        self.asha = Asha.of(study) if study.stops_early else None
        self._stored = {p.trial: p for p in stored if p.trial < study.budget} if study.search == "tpe" else {}
        given = {n: knobs for n, knobs in points.items() if n < study.budget} if study.search == "tpe" else {}
        self._given: dict[int, Mapping[str, Any]] = {**given, **{n: p.knobs for n, p in self._stored.items()}}
        # What is known is told before anything new is proposed.
        known = sorted(n for n in self._given if self._complete(self._given[n]))
        self._order = [*sorted(self._stored.keys() & set(known)), *(n for n in known if n not in self._stored)]
        self._order += [n for n in range(study.budget) if n not in known]
        self._finals: list[int] | None = None
        self.trials: dict[int, Record] = {}
        self.finals: list[Record] = []
        self.running = 0
        self.seconds: list[float] = []
        if study.budget == 1:
            # Nothing to choose: the other seeds need not wait for the first.
            self._finals = list(study.seeds[1:])

    @property
    def has_next(self) -> bool:
        """Whether a trial can be drawn now."""
        return bool(self._order or self._finals)

    @property
    def closed(self) -> int:
        """Closed runs. The chosen config with the trials' own seed is the trial that chose it, not another run."""
        return len(self.trials) + sum(record.seed != self.study.seeds[0] for record in self.finals)

    @property
    def total(self) -> int:
        """Runs of the whole study, finals included; fewer once there is nothing to choose from."""
        if len(self.trials) == self.study.budget and not self.has_next and not self.running:
            return self.closed
        return self.study.budget + len(self.study.seeds) - 1

    @property
    def best(self) -> Record | None:
        """The done trial with the highest objective (the earliest of equals)."""
        done = [r for r in self.trials.values() if r.outcome.status == "done"]
        return max(done, key=lambda r: preference(r.outcome.objective, r.trial), default=None)

    def draw(self) -> PlannedTrial:
        """The next trial. Raises IndexError when there is none now."""
        if self._order:
            trial = self._order.pop(0)
            drawn = self.search.ask(trial, self._given.get(trial))
            knobs = self.study.with_searched(drawn)
            return PlannedTrial(self, trial, "trial", self.study.seeds[0], knobs, self._stored.get(trial))
        seed = (self._finals or []).pop(0)
        best = self.best
        trial, knobs = (best.trial, dict(best.knobs)) if best else (0, dict(self.study.preset_knobs))
        return PlannedTrial(self, trial, "final", seed, knobs)

    def close(self, record: Record) -> None:
        """Takes the outcome of a drawn trial; with the last trial, the finals become due."""
        if record.role == "final":
            self.finals.append(record)
            return
        self.search.tell(record.trial, record.outcome)
        self.trials[record.trial] = record
        if len(self.trials) == self.study.budget and self.best is not None:
            self._finals = list(self.study.seeds) if self._finals is None else [self.study.seeds[0], *self._finals]

    def stored_outcome(self, planned: PlannedTrial, key: str) -> Outcome | None:
        """The stored outcome of a trial that still has the key it had when it closed."""
        return planned.stored.outcome if planned.stored is not None and planned.stored.key == key else None

    def _complete(self, knobs: Mapping[str, Any]) -> bool:
        return self.study.space is not None and all(k in knobs for k in self.study.space.knobs)
