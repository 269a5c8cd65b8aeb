"""The rows of each eval, found in one pass and handed out without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl


class ByEval(Mapping[str, pl.DataFrame]):
    """Eval -> its rows of a table (`counts`, `curves`), in their order.

    Files hold one eval or several one after the other, so that an eval's rows lie together: slices, not filters, which
    would read the whole table for every eval.
    """

    def __init__(self, table: pl.DataFrame) -> None:
        self._table = table.rechunk()
        stretches = self._table.select(pl.col("eval").rle()).unnest("eval")
        self._at: dict[str, list[tuple[int, int]]] = {}
        start = 0
        for length, name in stretches.select("len", "value").iter_rows():
            self._at.setdefault(name, []).append((start, length))
            start += length

    def __getitem__(self, name: str) -> pl.DataFrame:
        parts = [self._table.slice(start, length) for start, length in self._at[name]]
        return parts[0] if len(parts) == 1 else pl.concat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def of(self, names: list[str]) -> pl.DataFrame:
        """The rows of several evals together; those that have none are left out."""
        found = [self[name] for name in dict.fromkeys(names) if name in self._at]
        return pl.concat(found) if found else self._table.clear()
