"""Made-up stores for the tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from harness.store import SCHEMAS, Results


def value(table: str, column: str, dtype: pl.DataType, row: int) -> Any:
    """A value that differs by table, column and row."""
    number = sum(map(ord, table + column)) * 10 + row
    if dtype == pl.Utf8:
        return f"{table}.{column}.{row}" if row else 'é, "quoted"\n' + column
    if dtype == pl.Boolean:
        return bool(row % 2)
    return number / 8 if dtype.is_float() else number % 30000


def sample(table: str, rows: int = 2) -> pl.DataFrame:
    """Made-up rows of a table; every column that may be null is null in a third row."""
    columns = {c: [value(table, c, t, r) for r in range(rows)] for c, t in SCHEMAS[table].items()}
    return pl.DataFrame(columns, schema=SCHEMAS[table])


def counts(eval_id: str = "e", rows: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {"eval": eval_id, "image": [f"i{n}" for n in range(rows)], "class": 1, "tp": range(rows), "fp": 0, "fn": 2}
    )


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def same(a: Results, b: Results) -> bool:
    return all(getattr(a, t).sort(pl.all()).equals(getattr(b, t).sort(pl.all()), null_equal=True) for t in SCHEMAS)
