"""Dimensions of a search space: ranges and choices from which every drawn value is legal by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Value = float | int | str | bool | None


def tidy(value: float, low: float, high: float) -> float:
    """`value` at six significant digits inside [low, high]: readable, and stored without change."""
    return min(max(float(f"{value:.6g}"), low), high)


def is_number(value: Value) -> bool:
    """Whether it is a finite number, and no switch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
        return tidy(value, self.low, self.high)

    def suggest(self, trial: Trial, name: str) -> float:
        """The value that Optuna proposes for `name`."""
        return tidy(trial.suggest_float(name, self.low, self.high, log=self.log), self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """The same range as an Optuna distribution."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Value) -> bool:
        """Whether `value` lies in the range, up to the rounding of derived values."""
        slack = 1e-5 * (self.high - self.low)
        return is_number(value) and self.low - slack <= float(value) <= self.high + slack  # type: ignore

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
        return is_number(value) and float(value).is_integer() and self.low <= value <= self.high  # type: ignore

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
