"""Settings that were proposed but not yet closed, kept beside the run's checkpoint.

TPE with several trials in flight does not propose the same point twice; without these files the checkpoint of
an interrupted trial would be lost with its point.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.files import write_json

FILE = "trial.json"


def write_point(store_root: Path, key: str, study: str, trial: int, knobs: Mapping[str, Any]) -> None:
    """Notes that `trial` of `study` has these knob values and runs under `key`; atomic."""
    write_json(store_root / "work" / key / FILE, {"study": study, "trial": trial, "knobs": dict(knobs)})


def remove_point(store_root: Path, key: str) -> None:
    """Forgets the point of a closed run, and the work folder where nothing else is in it."""
    folder = store_root / "work" / key
    (folder / FILE).unlink(missing_ok=True)
    # A failed run keeps its checkpoint and saved batch.
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_points(store_root: Path, study: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """Trial number and knob values of the study's open trials, by the key that they run under."""
    points = {}
    for path in sorted(store_root.glob(f"work/*/{FILE}")):
        # Gone meanwhile, or no point: the trial is proposed anew.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            point = json.loads(path.read_text())
            if point["study"] == study:
                points[path.parent.name] = (int(point["trial"]), dict(point["knobs"]))
    return points
