"""Stores of many runs, made in one go: studies with trials, finals, thresholds and losses; a file a table, or a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from harness.store import SCHEMAS
from harness.store.files import parquet_bytes
from harness.store.rows import param_rows

TERMS = ("cls", "seg", "aux", "reg")
SCORED = (("cam", "fixed"), ("cam", "held-out"), ("cam", "oracle"), ("segmentation", "none"))
"""Target and threshold rule of the evals of every finished run."""
Save: TypeAlias = Callable[[str, list[dict[str, Any]] | pl.DataFrame], None]


def many_runs(
    root: Path,
    *,
    studies: int = 20,
    trials: int = 47,
    seeds: int = 3,
    images: int = 300,
    classes: int = 21,
    seen: int = 4,
    steps: int = 300,
    pruned: int = 5,
    a_file_a_run: bool = False,
) -> None:
    """`studies` methods on two datasets, each with `trials` trials of three knobs and `seeds` finals of the best.

    A trial's score falls with the distance of its first knob from 0.4, so that there is something to choose; every
    `pruned`-th is stopped (0: none). An image shows `seen` classes. `a_file_a_run`: as runs write them, else one file a
    table, which those who read single runs do not find.
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
            stopped = bool(pruned) and role == "trial" and number % pruned == pruned - 1 and number != best
            runs.append({
                "key": key, "sweep": "many", "study": f"study{s}", "trial": number, "method": f"method{s // 2}",
                "variant": "default", "dataset": f"set{s % 2}", "supervision": "tags", "backbone": "vit",
                "decoder": "d", "split_fingerprints": "{}", "pretraining": "", "tier": "lab", "iterations": steps,
                "seed": seed, "protocol": "held-out", "config": json.dumps(config),
                "status": "pruned" if stopped else "done", "versions": "{}", "git_commit": "c0ffee",
                "device": "cpu", "world_size": 1, "threads": 1,
                "precision": "fp32", "started": "2026-01-02T03:04:05+00:00", "gpu_seconds": 0.0,
                "seconds": json.dumps({"method": 100.0 + 20 * s, "data": 10.0, "score": 30.0}),
            })  # fmt: skip
            rows.append({
                "sweep": "many", "study": f"study{s}", "trial": number, "key": key, "role": role,
                "protocol": "held-out", "status": "pruned" if stopped else "done", "reached": 0.5 if stopped else 1.0,
                "objective": quality[number],
            })  # fmt: skip
        final = {**rows[-len(made) + best], "role": "final"}
        rows.append(final)
    save = partial(_write, root, a_file_a_run)
    save("runs", runs)
    save("trials", rows)
    save("params", pl.concat(param_rows(r["key"], json.loads(r["config"])["knobs"]) for r in runs))
    _scores(save, runs, {r["key"]: r["objective"] for r in rows}, images, (classes, seen), rng)
    _steps(save, [r["key"] for r in runs], steps, rng)


def _scores(save: Save, runs: list[dict[str, Any]], quality: dict[str, float], images: int, of: tuple[int, int],
            rng: np.random.Generator) -> None:  # fmt: skip
    classes, some = of
    seen = np.stack([np.concatenate([[0], 1 + rng.permutation(classes - 1)[: some - 1]]) for _ in range(images)])
    truth = rng.integers(200, 4000, seen.shape)
    evals: list[dict[str, Any]] = []
    counts, curves = [], []
    for run in (r for r in runs if r["status"] == "done"):
        key = run["key"]
        for target, rule in SCORED:
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
                "eval": name, "image": np.repeat([f"image{i}" for i in range(images)], some),
                "class": seen.ravel(), "tp": tp.ravel(), "fp": (truth - tp).ravel() // 2, "fn": (truth - tp).ravel(),
            }))  # fmt: skip
            if rule == "oracle":
                at = np.arange(100) / 100
                good = (1e5 * np.clip(quality[key] - (at - 0.35) ** 2, 0.02, 1)).astype(np.int64)
                curves.append(pl.DataFrame({
                    "eval": name, "class": np.repeat(np.arange(classes), 100), "threshold": np.tile(at, classes),
                    "tp": np.tile(good, classes), "fp": 30000, "fn": np.tile(100000 - good, classes),
                }))  # fmt: skip
    save("evals", evals)
    save("counts", pl.concat(counts))
    save("curves", pl.concat(curves))


def _steps(save: Save, keys: list[str], steps: int, rng: np.random.Generator) -> None:
    frames = [
        pl.DataFrame({"key": key, "stage": "train", "step": np.arange(steps), "name": term,
                      "value": np.exp(-np.arange(steps) / 90) + rng.normal(0, 0.02, steps)})
        for key in keys for term in TERMS
    ]  # fmt: skip
    save("steps", pl.concat(frames))


def _write(root: Path, a_file_a_run: bool, table: str, rows: list[dict[str, Any]] | pl.DataFrame) -> None:
    columns = SCHEMAS[table]
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(
        [{c: r.get(c) for c in columns} for r in rows], schema=dict(columns)
    )  # fmt: skip
    frame = frame.select(pl.col(c).cast(t) for c, t in columns.items())
    (root / table).mkdir(parents=True, exist_ok=True)
    files = {"many": frame}
    if a_file_a_run:
        run = pl.col("key") if "key" in columns else pl.col("eval").str.split("-").list.first()
        parts = frame.with_columns(run.alias("of")).partition_by("of", as_dict=True, include_key=False)
        files = {str(key): part for (key,), part in parts.items()}
    for name, part in files.items():
        (root / table / f"{name}.parquet").write_bytes(parquet_bytes(part))
