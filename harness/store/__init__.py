"""The store: where every result lies, and the one line that reads it (`harness.store.load(path)`)."""

from __future__ import annotations

from harness.store.reading import MissingRows, Results, StoreWarning, digest, latest_runs, load
from harness.store.schema import SCHEMA_VERSION, SCHEMAS
from harness.store.store import Store

__all__ = [
    "SCHEMAS",
    "SCHEMA_VERSION",
    "MissingRows",
    "Results",
    "Store",
    "StoreWarning",
    "digest",
    "latest_runs",
    "load",
]
