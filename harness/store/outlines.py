"""Outlines of sweeps: the words that they were given, beside the tables."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.datasets.io.opening import plain_bytes
from harness.store.reading import StoreWarning

SWEEPS = "sweeps"
"""Folder of the store with the plan of each sweep."""


def sweeps(store: Path) -> list[dict[str, Any]]:
    """The outlines of all sweeps of a store, newest first."""
    found = sorted((store / SWEEPS).glob("*.json"), key=lambda path: -_written(path))
    return [outline for path in found if (outline := outline_of(store, path.stem)) is not None]


def _written(path: Path) -> float:
    """When a file was written, seconds since the epoch; 0 where it is gone, or a link to nothing."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def outline_of(store: Path, sweep: str) -> dict[str, Any] | None:
    """sweep, pid, words (of each planned row) and studies of one sweep; None where the store has no plan of it."""
    path = store / SWEEPS / f"{sweep}.json"
    try:
        outline = json.loads(plain_bytes(path))
        found = {name: outline[name] for name in ("sweep", "pid", "words", "studies")}
        if not _is_outline(found):
            raise ValueError("a field of another type")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        warnings.warn(f"{path} is no plan of a sweep ({error!r}); left out", StoreWarning, stacklevel=2)
        return None


LARGEST_PID = 2**31 - 1
"""Of a process: the system asks for 32 bits."""


def _is_outline(found: Mapping[str, Any]) -> bool:
    """Whether sweep, pid, words and studies are of the types that a sweep writes."""
    words = found["words"] if isinstance(found["words"], list) else [found["words"]]
    return (
        isinstance(found["sweep"], str)
        and isinstance(found["pid"], int)
        and 0 < found["pid"] <= LARGEST_PID
        and all(isinstance(row, dict) for row in words)
        and isinstance(found["studies"], list)
        and all(_is_study(study) for study in found["studies"])
    )


def _is_study(study: Any) -> bool:
    return (
        isinstance(study, dict)
        and isinstance(study.get("id"), str)
        and isinstance(study.get("trials"), int)
        and isinstance(study.get("seeds"), list)
    )
