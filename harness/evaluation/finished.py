"""A finished run of a store by its key. No torch here: a wrong key is answered at once."""

from __future__ import annotations

from typing import Any

import polars as pl

from harness.errors import BadInput, Problem, nearest
from harness.store import Results, latest_runs

SHORTEST_KEY = 4


def find_run(results: Results, key: str) -> dict[str, Any]:
    """Its row of `runs`. Raises BadInput for a key that names none or several, and for a run that is not finished."""
    runs = latest_runs(results.runs)
    keys = runs["key"].to_list()
    found = [k for k in keys if k == key] or [k for k in keys if k.startswith(key) and len(key) >= SHORTEST_KEY]
    if len(found) != 1:
        what = f"{key!r} starts {len(found)} keys" if found else f"{key!r} is not in the store"
        fix = "write more of it" if found else (nearest(key, keys) if keys else "name the store with store=")
        raise BadInput(Problem("run", what, fix[:300]))
    row = runs.row(by_predicate=pl.col("key") == found[0], named=True)
    if row["status"] != "done":
        raise BadInput(Problem("run", f"{found[0]} is {row['status']}", "only finished runs have weights to score"))
    return row
