"""What damaged files have taken away from runs that are done."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from harness.store.files import COMPACT_PREFIX
from harness.store.reading import MissingRows, read_one

OF_A_RUN = ("params", "curves", "steps", "artifacts")
"""Tables of a done run beside its scores: not every run has rows in each."""


def lost_tables(root: Path, key: str, started: str) -> list[str]:
    """The tables of OF_A_RUN in which a done run had rows that a damaged file has taken away.

    The file is still in its place, or was set aside, alone or merged, after the run began (`started`, ISO 8601).
    Raises StoreError where a newer version of the harness wrote one.
    """
    lost = []
    for table in OF_A_RUN:
        try:
            read_one(root, table, key)
        except MissingRows:
            if (root / table / f"{key}.parquet").is_file() or _set_aside_since(root, table, key, started):
                lost.append(table)
    return lost


def _set_aside_since(root: Path, table: str, key: str, started: str) -> bool:
    began = datetime.fromisoformat(started).timestamp() if started else 0.0
    own, merged = f"{table}-{key}.", f"{table}-{COMPACT_PREFIX}"
    aside = root / "damaged"
    found = [p for p in aside.iterdir() if p.name.startswith((own, merged))] if aside.is_dir() else []
    return any(p.stat().st_mtime >= began for p in found)
