"""What an evaluation leaves in the store: exactly one eval, never a rewritten one, and a run's row where none is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.engine.inference.evals import Tables
from harness.errors import StoreError
from harness.store import Store, load


def known_eval(store: Store, columns: Mapping[str, Any]) -> dict[str, Any] | None:
    """The eval of the store that was scored in exactly this way, if there is one."""
    evals = load(store.root, ["evals"]).evals
    for name, value in columns.items():
        evals = evals.filter(pl.col(name) == value)
    return evals.row(0, named=True) if evals.height else None


def counts_of(store: Store, eval_id: str) -> pl.DataFrame:
    """Counts of one eval, wherever its file lies."""
    return load(store.root, ["counts"]).counts.filter(pl.col("eval") == eval_id)


def write_eval(store: Store, tables: Tables, run: Mapping[str, Any] | None = None) -> str:
    """Write the only eval of `tables` in files of its own, and the row of its run where the store has none yet.

    Returns the eval's id. Raises StoreError where it cannot be written; the eval's row comes after what it needs.
    """
    if len(tables.evals) != 1:
        raise StoreError(f"one evaluation adds one eval, not {len(tables.evals)}")
    row = tables.evals[0]
    eval_id = str(row["eval"])
    store.write("counts", eval_id, pl.concat(tables.counts))
    if tables.curves:
        store.write("curves", eval_id, pl.concat(tables.curves))
    store.write("evals", eval_id, pl.DataFrame([row], schema_overrides={"threshold": pl.Float64}))
    if run is not None and not store.has("runs", str(run["key"])):
        store.write("runs", str(run["key"]), pl.DataFrame([run]))
    return eval_id
