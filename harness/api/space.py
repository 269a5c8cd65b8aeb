"""Search spaces: named ranges from which every drawn setting is legal by construction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.api.spec import MethodConfig
from harness.errors import Problem, nearest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Name = str | tuple[str, str]
Value = float | int | str | bool | None
PROBE_ROWS = 64  # of the unit cube, on which `Space.check` tries the config's own rules


def _tidy(value: float, low: float, high: float) -> float:
    """`value` at six significant digits inside [low, high]: readable, and stored without change."""
    return min(max(float(f"{value:.6g}"), low), high)


def _check_range(what: str, low: float, high: float, log: bool = False) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{what}: needs finite low < high, got {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"{what}: a log scale needs low > 0, got {low}")


@dataclass(frozen=True)
class Float:
    """A number in [low, high], uniform on a linear or log scale. Raises ValueError for an empty range."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range("Float", self.low, self.high, self.log)

    def from_unit(self, u: float) -> float:
        """The value at share `u` in [0,1) of the scale."""
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        return _tidy(value, self.low, self.high)

    def suggest(self, trial: Trial, name: str) -> float:
        """The value that Optuna proposes for `name`."""
        return _tidy(trial.suggest_float(name, self.low, self.high, log=self.log), self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """The same range as an Optuna distribution."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Value) -> bool:
        """Whether `value` lies in the range, up to the rounding of derived values."""
        slack = 1e-5 * (self.high - self.low)
        return _is_number(value) and self.low - slack <= float(value) <= self.high + slack  # type: ignore

    def clip(self, value: Value) -> float:
        """`value`, which the range `holds`, without its rounding error."""
        return min(max(float(value), self.low), self.high)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Int:
    """A whole number in low..high, both included, uniform on a linear or logarithmic scale."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_range("Int", self.low, self.high, self.log)

    def from_unit(self, u: float) -> int:
        """The value at share `u` in [0,1) of the scale."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + u * (high - low)))
        else:
            value = self.low + math.floor(u * (self.high - self.low + 1))
        return min(max(value, self.low), self.high)

    def suggest(self, trial: Trial, name: str) -> int:
        """The value that Optuna proposes for `name`."""
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def distribution(self) -> BaseDistribution:
        """The same range as an Optuna distribution."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Value) -> bool:
        """Whether `value` is a whole number of the range."""
        return _is_number(value) and float(value).is_integer() and self.low <= value <= self.high  # type: ignore

    def clip(self, value: Value) -> int:
        """`value`, which the range `holds`, as int."""
        return int(value)  # type: ignore[arg-type]


@dataclass(frozen=True, init=False)
class Choice:
    """One of at least two distinct values (numbers, text, booleans, None)."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value):
        if len(values) < 2 or len({(type(v), v) for v in values}) != len(values):
            raise ValueError(f"Choice: needs at least two distinct values, got {values}")
        object.__setattr__(self, "values", values)

    def from_unit(self, u: float) -> Value:
        """The value at share `u` in [0,1) of the list."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def suggest(self, trial: Trial, name: str) -> Value:
        """The value that Optuna proposes for `name`."""
        return trial.suggest_categorical(name, self.values)

    def distribution(self) -> BaseDistribution:
        """The same list as an Optuna distribution."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def holds(self, value: Value) -> bool:
        """Whether `value` is one of the values."""
        return value in self.values

    def clip(self, value: Value) -> Value:
        """The listed value that equals `value` (1.0 read from a table becomes 1)."""
        return self.values[self.values.index(value)]


@dataclass(frozen=True)
class Gap:
    """Two knobs with low < high: `low` is searched in its range, then high = low + a positive gap."""

    low: tuple[float, float]
    gap: tuple[float, float]

    def __post_init__(self) -> None:
        _check_range("Gap.low", *self.low)
        _check_range("Gap.gap", *self.gap)
        if self.gap[0] <= 0:
            raise ValueError(f"Gap.gap: must be positive, got {self.gap[0]}")


Atom = Float | Int | Choice
Dim = Atom | Gap


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
                raw[_gap_name(*name)] = high - low if _is_number(low) and _is_number(high) else None
        return raw

    def _knobs_of(self, params: Mapping[str, Value]) -> dict[str, Value]:
        knobs: dict[str, Value] = {}
        for name, dim in self._dims.items():
            if isinstance(name, tuple):
                assert isinstance(dim, Gap)
                low, high = name
                start, gap = float(params[low]), float(params[_gap_name(low, high)])  # type: ignore[arg-type]
                top = dim.low[1] + dim.gap[1]
                knobs |= {low: start, high: _tidy(start + gap, start, top)}
            else:
                knobs[name] = params[name]
        return knobs
