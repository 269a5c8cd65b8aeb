"""Rows of the tables `runs` and `params`, and where the code came from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl


def run_row(payload: Mapping[str, Any], status: str, **values: Any) -> dict[str, Any]:
    """A row of `runs` from a payload: used for finished runs here, for pruned and failed ones by the driver."""
    config = payload["config"]
    machine = payload["machine"]
    labels = payload.get("labels", {})
    row: dict[str, Any] = {
        "key": payload["key"],
        "sweep": labels.get("sweep", ""),
        "study": labels.get("study", ""),
        "trial": int(labels.get("trial", 0)),
        "method": config["method"],
        "variant": config["variant"],
        "dataset": payload.get("described", {}).get("dataset", config["dataset"]),
        "split_fingerprints": json.dumps(payload.get("fingerprints", {})),
        "supervision": config["labels"],
        "backbone": config["backbone"],
        "decoder": config["decoder"],
        "pretraining": payload.get("pretraining", ""),
        "tier": config["tier"],
        "iterations": max(1, round(config["iterations"] * config["fidelity"])),
        "seed": config["seed"],
        "protocol": machine["protocol"],
        "config": json.dumps({**config, **payload.get("described", {})}, sort_keys=True),
        "status": status,
        "error_class": "",
        "error_message": "",
        "versions": json.dumps(payload["versions"]),
        "git_commit": git_commit(),
        "device": "cpu",
        "world_size": 1,
        "threads": machine["threads"],
        "precision": config["precision"],
        "started": datetime.now(UTC).isoformat(),
        "seconds": "{}",
        "gpu_seconds": 0.0,
        "peak_memory": 0,
        "steps_lost": 0,
    }
    row.update(values)
    return row


def param_rows(key: str, config: Mapping[str, Any], fitted: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """The knobs of a run, and as `fitted.<name>` what was fitted to its size: as a number where it is one, as text."""
    base = {f"base.{k}": v for k, v in (config.get("base_knobs") or {}).items()}
    knobs = {**config["knobs"], **base, **{f"fitted.{k}": v for k, v in (fitted or {}).items()}}
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
