"""Stores of many runs, made in one go: studies with trials and finals, thresholds, losses, one file for each table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.store import SCHEMAS

TERMS = ("cls", "seg", "aux", "reg")
CLASSES_SEEN = 4
"""Classes in an image."""


def many_runs(root: Path, *, studies: int = 20, trials: int = 47, seeds: int = 3, images: int = 300,
              classes: int = 21, steps: int = 300) -> None:  # fmt: skip
    """`studies` methods on two datasets, each with `trials` trials of three knobs and `seeds` finals of the best.

    A trial's score falls with the distance of its first knob from 0.4, so that there is something to choose.
    """
    rng = np.random.default_rng(0)
    names = ["background", *(f"class {k}" for k in range(1, classes))]
    runs: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for s in range(studies):
        knobs = [{"ratio": 0.3, "depth": 3, "norm": "batch"}] + [
            {"ratio": float(rng.uniform(0.1, 0.9)), "depth": int(rng.integers(1, 7)), "norm": "ab"[rng.integers(2)]}
            for _ in range(trials - 1)
        ]  # fmt: skip
        quality = [0.6 - 0.5 * abs(k["ratio"] - 0.4) + float(rng.normal(0, 0.01)) for k in knobs]
        best = int(np.argmax(quality))
        made = [(n, 0, "trial") for n in range(trials)] + [(best, seed, "final") for seed in range(1, seeds)]
        for number, seed, role in made:
            key = f"s{s:03d}t{number:03d}x{seed}"
            config = {
                "seed": seed,
                "knobs": knobs[number],
                "class_names": names,
                "has_background": True,
                "split": "test",
            }
            pruned = role == "trial" and number % 5 == 4 and number != best
            runs.append({
                "key": key, "sweep": "many", "study": f"study{s}", "trial": number, "method": f"method{s // 2}",
                "variant": "default", "dataset": f"set{s % 2}", "supervision": "tags", "backbone": "vit",
                "decoder": "d", "split_fingerprints": "{}", "pretraining": "", "tier": "lab", "iterations": steps,
                "seed": seed, "protocol": "held-out", "config": json.dumps(config),
                "status": "pruned" if pruned else "done", "versions": "{}", "git_commit": "c0ffee",
                "device": "cpu", "world_size": 1, "threads": 1,
                "precision": "fp32", "started": "2026-01-02T03:04:05+00:00", "gpu_seconds": 0.0,
                "seconds": json.dumps({"method": 100.0 + 20 * s, "data": 10.0, "score": 30.0}),
            })  # fmt: skip
            rows.append({
                "sweep": "many", "study": f"study{s}", "trial": number, "key": key, "role": role,
                "protocol": "held-out", "status": "pruned" if pruned else "done", "reached": 0.5 if pruned else 1.0,
                "objective": quality[number],
            })  # fmt: skip
        final = {**rows[-trials - seeds + 1 + best], "role": "final"}
        rows.append(final)
    _write(root, "runs", runs)
    _write(root, "trials", rows)
    _scores(root, runs, {r["key"]: r["objective"] for r in rows}, images, classes, rng)
    _steps(root, [r["key"] for r in runs], steps, rng)


def _scores(root: Path, runs: list[dict[str, Any]], quality: dict[str, float], images: int, classes: int,
            rng: np.random.Generator) -> None:  # fmt: skip
    seen = np.stack(
        [np.concatenate([[0], 1 + rng.permutation(classes - 1)[: CLASSES_SEEN - 1]]) for _ in range(images)]
    )
    truth = rng.integers(200, 4000, seen.shape)
    evals: list[dict[str, Any]] = []
    counts, curves = [], []
    for run in (r for r in runs if r["status"] == "done"):
        key = run["key"]
        for target, rule in (("cam", "fixed"), ("cam", "held-out"), ("cam", "oracle"), ("segmentation", "none")):
            name = f"{key}-{target}-{rule}"
            maps = target == "cam"
            evals.append({
                "eval": name, "key": key, "target": target, "weights": "student", "step": 300, "split": "test",
                "tags": "truth" if maps else "none", "scales": "1", "flip": False, "fusion": "max", "crf": "none",
                "threshold_rule": rule, "threshold": {"fixed": 0.5, "held-out": 0.3, "oracle": 0.35}.get(rule),
                "protocol": "held-out", "images": images, "seconds": 1.0,
            })  # fmt: skip
            shift = {"fixed": -0.1, "oracle": 0.02}.get(rule, 0.0) + rng.normal(0, 0.1, seen.shape)
            share = np.clip(quality[key] + shift, 0.02, 0.98)
            tp = (truth * share).astype(np.int64)
            counts.append(pl.DataFrame({
                "eval": name, "image": np.repeat([f"image{i}" for i in range(images)], CLASSES_SEEN),
                "class": seen.ravel(), "tp": tp.ravel(), "fp": (truth - tp).ravel() // 2, "fn": (truth - tp).ravel(),
            }))  # fmt: skip
            if rule == "oracle":
                at = np.arange(100) / 100
                good = (1e5 * np.clip(quality[key] - (at - 0.35) ** 2, 0.02, 1)).astype(np.int64)
                curves.append(pl.DataFrame({
                    "eval": name, "class": np.repeat(np.arange(classes), 100), "threshold": np.tile(at, classes),
                    "tp": np.tile(good, classes), "fp": 30000, "fn": np.tile(100000 - good, classes),
                }))  # fmt: skip
    _write(root, "evals", evals)
    _write(root, "counts", pl.concat(counts))
    _write(root, "curves", pl.concat(curves))


def _steps(root: Path, keys: list[str], steps: int, rng: np.random.Generator) -> None:
    frames = [
        pl.DataFrame({"key": key, "stage": "train", "step": np.arange(steps), "name": term,
                      "value": np.exp(-np.arange(steps) / 90) + rng.normal(0, 0.02, steps)})
        for key in keys for term in TERMS
    ]  # fmt: skip
    _write(root, "steps", pl.concat(frames))


def _write(root: Path, table: str, rows: list[dict[str, Any]] | pl.DataFrame) -> None:
    columns = SCHEMAS[table]
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(
        [{c: r.get(c) for c in columns} for r in rows], schema=dict(columns)
    )  # fmt: skip
    (root / table).mkdir(parents=True, exist_ok=True)
    frame.select(pl.col(c).cast(t) for c, t in columns.items()).write_parquet(root / table / "many.parquet")
