"""Rows of the tables `runs` and `params`, and where the code came from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import StoreError

REUSED, BY_STAGE, ALL_ATTEMPTS = "reused", "by_stage", "train_all_attempts"
"""Beside the phases in the column `seconds`: what other runs spent on stages that a run found done; a run's own seconds
stage by stage, without scoring and what lies between; in older stores, the training of all attempts."""
NO_PHASES = ("reached", REUSED, ALL_ATTEMPTS, BY_STAGE)
"""None of them is a phase, nor is the share that a stopped run reached."""


def run_row(status: str, **columns: Any) -> dict[str, Any]:
    """A row of `runs`: `columns`, and for those that nobody gives what holds of a run outside any sweep, on a CPU,
    without cost."""
    usual: dict[str, Any] = {
        "sweep": "",
        "study": "",
        "trial": 0,
        "pretraining": "",
        "error_class": "",
        "error_message": "",
        "git_commit": git_commit(),
        "device": "cpu",
        "world_size": 1,
        "started": datetime.now(UTC).isoformat(),
        "seconds": "{}",
        "gpu_seconds": 0.0,
        "peak_memory": 0,
        "steps_lost": 0,
    }
    return {**usual, **columns, "status": status}


def param_rows(
    key: str,
    knobs: Mapping[str, Any],
    base_knobs: Mapping[str, Any] | None = None,
    fitted: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """The knobs of a run, as `base.<name>` those of its base, and as `fitted.<name>` what was fitted to its size: as a
    number where it is one, as text."""
    base = {f"base.{k}": v for k, v in (base_knobs or {}).items()}
    knobs = {**knobs, **base, **{f"fitted.{k}": v for k, v in (fitted or {}).items()}}
    numeric = [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None for v in knobs.values()]
    return pl.DataFrame(
        {
            "key": [key] * len(knobs),
            "knob": list(knobs),
            "value": numeric,
            "text": [json.dumps(v) for v in knobs.values()],
        },
        schema={"key": pl.Utf8, "knob": pl.Utf8, "value": pl.Float64, "text": pl.Utf8},
    )


def git_commit() -> str:
    """The commit of the harness's own checkout, with `+` where files differ; empty outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip()


def phase_seconds(row: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a run by phase, from its column `seconds`; what stands there beside phases is left out.

    Raises StoreError where the column is no JSON of numbers.
    """
    return _numbers(row, {k: v for k, v in json_of(row, "seconds").items() if k not in NO_PHASES})


def stage_seconds(row: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a run by stage, where its recipe has several and it was run since these are recorded.

    Raises StoreError where the column is no JSON of numbers.
    """
    return _numbers(row, json_of(row, "seconds").get(BY_STAGE, {}))


def _numbers(row: Mapping[str, Any], found: Any) -> dict[str, float]:
    if not isinstance(found, dict) or not all(isinstance(value, int | float) for value in found.values()):
        raise StoreError(f"run {row['key']}: its seconds hold {found!r:.80}, no numbers by name")
    return {name: float(value) for name, value in found.items()}


def json_of(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The JSON object in a column of `runs`, empty where there is none. Raises StoreError where it is no such thing."""
    return json_object(row[column], f"run {row['key']}: its {column}")


def json_object(text: str | None, what: str) -> dict[str, Any]:
    """The JSON object in a text of the store, empty where there is none. Raises StoreError that names `what` it is."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{what} is no JSON ({type(error).__name__}: {error})") from error
    if not isinstance(value, dict):
        raise StoreError(f"{what} is JSON, but a {type(value).__name__} and no object")
    return value
