"""Outlines of sweeps: the words that they were given, beside the tables."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from harness.store.reading import StoreWarning

SWEEPS = "sweeps"
"""Folder of the store with the plan of each sweep."""


def sweeps(store: Path) -> list[dict[str, Any]]:
    """The outlines of all sweeps of a store, newest first."""
    found = sorted((store / SWEEPS).glob("*.json"), key=lambda p: -p.stat().st_mtime)
    return [outline for path in found if (outline := outline_of(store, path.stem)) is not None]


def outline_of(store: Path, sweep: str) -> dict[str, Any] | None:
    """sweep, pid, words (of each planned row) and studies of one sweep; None where the store has no plan of it."""
    path = store / SWEEPS / f"{sweep}.json"
    try:
        outline = json.loads(path.read_text())
        return {name: outline[name] for name in ("sweep", "pid", "words", "studies")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        warnings.warn(f"{path} is no plan of a sweep ({error!r}); left out", StoreWarning, stacklevel=2)
        return None
