"""What reading a store gives: one data frame per table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, cast

import polars as pl

from harness.errors import StoreError
from harness.store.by_eval import ByEval


class _NotLoaded:
    """Stands in `Results` for a table that was not asked for."""


_NOT_LOADED = cast(pl.DataFrame, _NotLoaded)


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """Everything in a store: one data frame per table, those without files empty but typed.

    Reading a table that was not loaded raises StoreError. The order of rows means nothing. A run that ran again after
    a failure has several rows in `runs` (`latest_runs` picks one per key).
    """

    runs: pl.DataFrame = _NOT_LOADED
    trials: pl.DataFrame = _NOT_LOADED
    params: pl.DataFrame = _NOT_LOADED
    evals: pl.DataFrame = _NOT_LOADED
    counts: pl.DataFrame = _NOT_LOADED
    curves: pl.DataFrame = _NOT_LOADED
    steps: pl.DataFrame = _NOT_LOADED
    artifacts: pl.DataFrame = _NOT_LOADED
    claims: pl.DataFrame = _NOT_LOADED

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if value is _NOT_LOADED:
            raise StoreError(f"the table {name} was not loaded: name it, as in load(path, tables=[{name!r}])")
        return value

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables that are there, by name."""
        every = {f.name: object.__getattribute__(self, f.name) for f in fields(self)}
        return {name: frame for name, frame in every.items() if frame is not _NOT_LOADED}

    def with_tables(self, **frames: pl.DataFrame) -> Results:
        """The same with these tables, in place of or beside its own."""
        return Results(**{**self.tables, **frames})

    @cached_property
    def counts_by_eval(self) -> ByEval:
        """The counts of each eval."""
        return ByEval(self.counts)

    def __repr__(self) -> str:
        return f"Results({', '.join(f'{name}: {frame.height} rows' for name, frame in self.tables.items())})"
