"""Search spaces: named ranges from which every drawn setting is legal by construction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api.dims import Atom, Choice, Dim, Float, Gap, Int, Value, is_number, tidy
from harness.api.spec import MethodConfig
from harness.errors import Problem, nearest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Name = str | tuple[str, str]
PROBE_ROWS = 64  # of the unit cube, on which `Space.check` tries the config's own rules

__all__ = ["Atom", "Choice", "Dim", "Float", "Gap", "Int", "Name", "Space", "Value"]


def _names(name: Name) -> tuple[str, ...]:
    return name if isinstance(name, tuple) else (name,)


def _gap_name(low: str, high: str) -> str:
    return f"{high}-{low}"


class Space(Mapping[Name, Dim]):
    """The searched knobs of one method: a mapping of knob (or pair of knobs, for `Gap`) to range.

    Example: `Space({"mask_ratio": Float(.1, .6), ("low", "high"): Gap(low=(.1, .4), gap=(.1, .4))})`.
    Raises ValueError for a knob named twice, or a pair and its range that do not fit.
    """

    def __init__(self, dims: Mapping[Name, Dim]):
        self._dims = dict(dims)
        self._atoms: dict[str, Atom] = {}
        for name, dim in self._dims.items():
            if isinstance(dim, Gap) and isinstance(name, tuple):
                low, high = name
                self._atoms |= {low: Float(*dim.low), _gap_name(low, high): Float(*dim.gap)}
            elif not isinstance(dim, Gap) and isinstance(name, str):
                self._atoms[name] = dim
            else:
                raise ValueError(f"{name!r}: a pair of knobs takes a Gap, a single knob does not")
        if len(set(self.knobs)) != len(self.knobs):
            raise ValueError(f"a knob is named twice: {self.knobs}")

    def __getitem__(self, name: Name) -> Dim:
        return self._dims[name]

    def __iter__(self) -> Iterator[Name]:
        return iter(self._dims)

    def __len__(self) -> int:
        return len(self._dims)

    @property
    def knobs(self) -> tuple[str, ...]:
        """Names of all knobs that a suggestion sets, derived ones included."""
        return tuple(knob for name in self._dims for knob in _names(name))

    @property
    def dims(self) -> int:
        """Free numbers per suggestion (a `Gap` has two)."""
        return len(self._atoms)

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Knob values that Optuna's `trial` proposes, derived ones included."""
        return self._knobs_of({name: atom.suggest(trial, name) for name, atom in self._atoms.items()})

    def from_unit(self, row: NDArray[np.float64] | Sequence[float]) -> dict[str, Value]:
        """Knob values at a point of the unit cube; columns beyond `dims` are ignored.

        Raises ValueError when the row is too short or leaves [0,1].
        """
        if len(row) < self.dims or not all(0.0 <= u <= 1.0 for u in row):
            raise ValueError(f"needs {self.dims} numbers in [0,1], got {row}")
        pairs = zip(self._atoms.items(), row, strict=False)
        return self._knobs_of({name: atom.from_unit(float(u)) for (name, atom), u in pairs})

    def params_of(self, knobs: Mapping[str, Any]) -> dict[str, Value]:
        """Optuna's parameters of given knob values; knobs outside the space are ignored.

        Raises ValueError with every knob that is missing or out of range.
        """
        if problems := self.outside(knobs):
            raise ValueError("\n".join(str(p) for p in problems))
        raw = self._raw_params(knobs)
        return {name: atom.clip(raw[name]) for name, atom in self._atoms.items()}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions by parameter name."""
        return {name: atom.distribution() for name, atom in self._atoms.items()}

    def outside(self, knobs: Mapping[str, Any]) -> list[Problem]:
        """What hinders `knobs` from being a point of this space: missing knobs, values out of range."""
        if missing := [k for k in self.knobs if k not in knobs]:
            return [Problem(k, "searched, but has no value", "give the preset one") for k in missing]
        raw = self._raw_params(knobs)
        fix = "widen the search space or change the value"
        wrong = [(name, atom) for name, atom in self._atoms.items() if not atom.holds(raw[name])]
        return [Problem(name, f"{raw[name]!r} is outside {atom}", fix) for name, atom in wrong]

    def check(self, config: type[MethodConfig], knobs: Mapping[str, Any] | None = None) -> list[Problem]:
        """Searched names that `config` lacks, drawn settings that its rules refuse; empty when all is well.

        `knobs` are the preset's values: of the knobs that are not searched, and trial 0's of those that are.
        """
        known = config.knobs()
        unknown = [
            Problem(k, f"is searched, but {config.__name__} has no such knob", nearest(k, known))
            for k in self.knobs
            if k not in known
        ]
        if unknown:
            return unknown
        found = self.outside(knobs) if knobs is not None else []
        inside = np.random.default_rng(0).random((PROBE_ROWS, self.dims))
        corners = np.concatenate([np.zeros((1, self.dims)), np.ones((1, self.dims)), inside])
        for row in corners:
            drawn = self.from_unit(row)
            if broken := config(**{**(knobs or {}), **drawn}).problems():
                return found + [Problem(p.where, f"the space allows {drawn}: {p.found}", p.fix) for p in broken]
        return found

    def without(self, *knobs: str) -> Space:
        """The space without the given knobs (both of a pair when one is given): values that a user fixed."""
        gone = set(knobs)
        return Space({name: dim for name, dim in self._dims.items() if not gone & set(_names(name))})

    def _raw_params(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        raw = {name: knobs[name] for name in self._atoms if name in knobs}
        for name in self._dims:
            if isinstance(name, tuple):
                low, high = (knobs[k] for k in name)
                raw[_gap_name(*name)] = high - low if is_number(low) and is_number(high) else None
        return raw

    def _knobs_of(self, params: Mapping[str, Value]) -> dict[str, Value]:
        knobs: dict[str, Value] = {}
        for name, dim in self._dims.items():
            if isinstance(name, tuple):
                assert isinstance(dim, Gap)
                low, high = name
                start, gap = float(params[low]), float(params[_gap_name(low, high)])  # type: ignore[arg-type]
                top = dim.low[1] + dim.gap[1]
                knobs |= {low: start, high: tidy(start + gap, start, top)}
            else:
                knobs[name] = params[name]
        return knobs
