"""Tables of the store, columns and types (design section 4, Store). A new version only adds columns."""

from __future__ import annotations

from typing import TypeAlias

import polars as pl

from harness.errors import StoreError

SCHEMA_VERSION = 1

Schema: TypeAlias = dict[str, pl.DataType]

_TEXT = pl.Utf8()
_INT = pl.Int64()
_FLOAT = pl.Float64()
_CLASS = pl.Int16()
_FLAG = pl.Boolean()

SCHEMAS: dict[str, Schema] = {
    "runs": {
        "key": _TEXT, "sweep": _TEXT, "study": _TEXT, "trial": _INT, "method": _TEXT, "variant": _TEXT,
        "dataset": _TEXT, "split_fingerprints": _TEXT, "supervision": _TEXT, "backbone": _TEXT,
        "decoder": _TEXT, "pretraining": _TEXT, "tier": _TEXT, "iterations": _INT, "seed": _INT,
        "protocol": _TEXT, "config": _TEXT, "status": _TEXT, "error_class": _TEXT, "error_message": _TEXT,
        "versions": _TEXT, "git_commit": _TEXT, "device": _TEXT,
        "world_size": _INT, "threads": _INT, "precision": _TEXT,
        "started": _TEXT, "seconds": _TEXT, "gpu_seconds": _FLOAT, "peak_memory": _INT, "steps_lost": _INT,
    },
    "trials": {
        "sweep": _TEXT, "study": _TEXT, "trial": _INT, "key": _TEXT, "role": _TEXT, "protocol": _TEXT,
        "status": _TEXT, "reached": _FLOAT, "objective": _FLOAT,
    },
    "params": {"key": _TEXT, "knob": _TEXT, "value": _FLOAT, "text": _TEXT},
    "evals": {
        "eval": _TEXT, "key": _TEXT, "target": _TEXT, "weights": _TEXT, "step": _INT, "split": _TEXT,
        "tags": _TEXT, "scales": _TEXT, "flip": _FLAG, "fusion": _TEXT, "crf": _TEXT,
        "threshold_rule": _TEXT, "threshold": _FLOAT, "protocol": _TEXT, "images": _INT, "seconds": _FLOAT,
    },
    "counts": {"eval": _TEXT, "image": _TEXT, "class": _CLASS, "tp": _INT, "fp": _INT, "fn": _INT},
    "curves": {"eval": _TEXT, "class": _CLASS, "threshold": _FLOAT, "tp": _INT, "fp": _INT, "fn": _INT},
    "steps": {"key": _TEXT, "stage": _TEXT, "step": _INT, "name": _TEXT, "value": _FLOAT},
    "artifacts": {"key": _TEXT, "kind": _TEXT, "path": _TEXT, "digest": _TEXT},
    "claims": {
        "paper": _TEXT, "table": _TEXT, "row": _TEXT, "column": _TEXT, "value": _FLOAT, "unit": _TEXT,
        "dataset": _TEXT, "split": _TEXT, "target": _TEXT, "crf": _TEXT, "scales": _TEXT, "backbone": _TEXT,
        "supervision": _TEXT, "note": _TEXT, "source": _TEXT,
    },
}  # fmt: skip
"""Columns of every table in order. `peak_memory` is bytes; `evals.images` is how many images were scored;
`split_fingerprints`, `config`, `versions` and `runs.seconds` are JSON; `started` is ISO 8601 with zone."""

IDENTITY: dict[str, tuple[str, ...]] = {
    "runs": ("key",),
    "trials": ("sweep", "study", "trial", "key", "role"),
    "params": ("key", "knob"),
    "evals": ("eval",),
    "counts": ("eval", "image", "class"),
    "curves": ("eval", "class", "threshold"),
    "steps": ("key", "stage", "step", "name"),
    "artifacts": ("key", "kind", "path"),
    "claims": ("paper", "table", "row", "column"),
}
"""Columns that are never null and whose values, taken together, occur once in a file."""


def table_schema(table: str) -> Schema:
    """The schema of `table`; StoreError names the known tables when there is none of that name."""
    try:
        return SCHEMAS[table]
    except KeyError:
        raise StoreError(f"the store has no table {table!r}, only {', '.join(SCHEMAS)}") from None


def empty(table: str) -> pl.DataFrame:
    """The table without rows."""
    return pl.DataFrame(schema=table_schema(table))


def conform(table: str, df: pl.DataFrame) -> pl.DataFrame:
    """`df` with the columns of `table` in order and in its types.

    Raises StoreError for missing or unknown columns, casts that would change a value, and null or repeated
    identities.
    """
    schema = table_schema(table)
    missing = [c for c in schema if c not in df.columns]
    unknown = [c for c in df.columns if c not in schema]
    if missing or unknown:
        raise StoreError(f"table {table}: missing columns {missing}, unknown columns {unknown}")
    out = df.select(_cast(table, df[name], dtype) for name, dtype in schema.items())
    identity = list(IDENTITY[table])
    nulls = [c for c in identity if out[c].null_count()]
    if nulls:
        raise StoreError(f"table {table}: null in {nulls}, which name the row")
    if out.select(pl.struct(identity).is_duplicated().any()).item():
        raise StoreError(f"table {table}: two rows with the same {', '.join(identity)}")
    return out


def _cast(table: str, column: pl.Series, dtype: pl.DataType) -> pl.Series:
    if column.dtype == dtype:
        return column
    kinds = (column.dtype.is_numeric(), dtype.is_numeric())
    textual = column.dtype in (pl.Categorical, pl.Enum) and dtype == pl.Utf8
    if not (column.dtype == pl.Null or all(kinds) or textual):
        raise StoreError(f"table {table}: column {column.name!r} holds {column.dtype}, not {dtype}")
    try:
        cast = column.cast(dtype, strict=True)
    except pl.exceptions.InvalidOperationError as error:
        raise StoreError(f"table {table}: column {column.name!r} does not fit into {dtype}: {error}") from error
    if column.dtype.is_float() and dtype.is_integer() and not cast.cast(column.dtype).eq_missing(column).all():
        raise StoreError(f"table {table}: column {column.name!r} has fractions, which {dtype} would cut")
    return cast
