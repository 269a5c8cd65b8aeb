"""Made-up stores for the tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from harness.store import SCHEMAS, Results, Store


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


def add_run(store: Store, key: str, status: str = "done", artifacts: dict[str, str] | None = None) -> None:
    """A made-up run with all its tables, in the engine's order: `runs` last."""
    named = {"key": pl.lit(key)}
    store.write("params", key, sample("params", 3).with_columns(**named))
    store.write("evals", key, sample("evals", 1).with_columns(**named, eval=pl.lit(f"e{key}"), images=3))
    store.write("counts", key, counts(f"e{key}"))
    store.write("curves", key, sample("curves", 4).with_columns(eval=pl.lit(f"e{key}")))
    for kind, path in (artifacts or {}).items():
        row = pl.DataFrame({"key": key, "kind": kind, "path": path, "digest": "d"})
        store.write("artifacts", f"{key}-{kind}", row)
    store.write("runs", key, sample("runs", 1).with_columns(**named, status=pl.lit(status)), again=True)


def with_outputs(root: Path) -> Store:
    """Two done runs and one that is not, each with weights, maps, a picture and a work folder."""
    store = Store(root)
    for key, status in (("a", "done"), ("b", "done"), ("f", "failed")):
        paths = {
            "weights": f"cache/s{key}/weights.safetensors",
            "cams": f"cache/c{key}/cams",
            "example": f"work/{key}/example.png",
        }
        for path in (*paths.values(), f"work/{key}/progress.json", f"cache/s{key}/training.json"):
            target = root / path / "0.npy" if path.endswith("cams") else root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"x" * 100)
        add_run(store, key, status, paths)
    (root / "cache" / "unnamed").mkdir()
    (root / "cache" / "unnamed" / "done.json").write_text("{}")
    return store
