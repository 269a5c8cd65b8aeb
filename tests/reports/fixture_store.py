"""A small store made by the real writer, with scores that can be worked out by hand.

Each image of `toy` has 80 pixels of background and 40 of class 1. A prediction that swaps `n` pixels of each class has
background tp = 80 - n, fp = fn = n and class 1 tp = 40 - n, fp = fn = n, so IoU is (80-n)/(80+n) and (40-n)/(40+n).
All images are alike, so every resampling of images gives the same score and intervals come from seeds alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.store import SCHEMAS, Store

IMAGES = tuple(f"toy_{i}" for i in range(6))
SWEEP = "5weep"


def frame(table: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of a table; columns that a row does not name are null."""
    columns = SCHEMAS[table]
    return pl.DataFrame([{c: r.get(c) for c in columns} for r in rows], schema=dict(columns))


def swapped_miou(n: int) -> float:
    """mIoU, in percent, of a prediction that swaps `n` pixels of each class."""
    return 50.0 * ((80 - n) / (80 + n) + (40 - n) / (40 + n))


class ToyStore:
    """Writes runs, trials and evals with few words."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)

    def run(
        self,
        key: str,
        method: str,
        *,
        seed: int = 0,
        status: str = "done",
        study: str = "",
        trial: int = 0,
        **other: Any,
    ) -> str:
        row = {
            "key": key,
            "sweep": SWEEP,
            "study": study or method,
            "trial": trial,
            "method": method,
            "variant": "default",
            "dataset": "toy",
            "split_fingerprints": json.dumps({"test": "f1"}),
            "supervision": "tags",
            "backbone": "shapes_vit",
            "decoder": "largefov",
            "pretraining": "package",
            "tier": "smoke",
            "iterations": 300,
            "seed": seed,
            "protocol": "held-out",
            "config": json.dumps({"seed": seed, "method": method, "class_names": ["background", "disc"]}),
            "status": status,
            "versions": "{}",
            "git_commit": "c0ffee",
            "device": "cpu",
            "world_size": 1,
            "threads": 2,
            "precision": "fp32",
            "started": "2026-01-02T03:04:05+00:00",
            "seconds": json.dumps({"method": 1500.0, "score": 300.0}),
            "gpu_seconds": 0.0,
            "peak_memory": 1000,
            "steps_lost": 0,
            **other,
        }
        self.store.write("runs", key, frame("runs", [row]))
        self.store.write(
            "params",
            key,
            frame(
                "params",
                [
                    {"key": key, "knob": "mask_ratio", "value": 0.4},
                    {"key": key, "knob": "selection", "text": "random"},
                ],
            ),
        )
        return key

    def trial(
        self,
        key: str,
        study: str,
        *,
        trial: int = 0,
        role: str = "trial",
        objective: float | None = 0.5,
        status: str = "done",
        reached: float = 1.0,
        sweep: str = SWEEP,
        protocol: str = "held-out",
    ) -> None:
        row = {
            "sweep": sweep,
            "study": study,
            "trial": trial,
            "key": key,
            "role": role,
            "protocol": protocol,
            "status": status,
            "reached": reached,
            "objective": objective,
        }
        self.store.write("trials", f"{sweep}-{study}-{trial}-{role}-{key}", frame("trials", [row]))

    def evaluate(
        self, key: str, target: str, swaps: int | Sequence[int], *, rule: str | None = None, **other: Any
    ) -> str:
        """An eval whose prediction swaps that many pixels, on all images or image by image."""
        maps = target != "segmentation"
        rule = rule if rule is not None else ("held-out" if maps else "none")
        row = {
            "key": key,
            "target": target,
            "weights": "student",
            "step": 300,
            "split": "test",
            "tags": "truth" if maps else "none",
            "scales": "1",
            "flip": False,
            "fusion": "max",
            "crf": "none",
            "threshold_rule": rule,
            "threshold": 0.4 if maps else None,
            "protocol": rule if maps else "held-out",
            "images": len(IMAGES),
            "seconds": 1.0,
            **other,
        }
        parts = [str(row[c]) for c in ("key", "target", "weights", "split", "tags", "threshold_rule", "scales", "crf")]
        row["eval"] = "-".join(parts).replace(",", "+")
        per_image = [swaps] * len(IMAGES) if isinstance(swaps, int) else list(swaps)
        counts = [
            {"eval": row["eval"], "image": image, "class": c, "tp": size - n, "fp": n, "fn": n}
            for image, n in zip(IMAGES, per_image, strict=True)
            for c, size in ((0, 80), (1, 40))
        ]
        self.store.write("evals", row["eval"], frame("evals", [row]))
        self.store.write("counts", row["eval"], frame("counts", counts))
        return str(row["eval"])


def toy_store(root: Path) -> ToyStore:
    """Four studies: `cam` (its trial 0 chosen, trial 1 pruned), `fsr` and its equal `twin` (finals of two seeds, one
    failed trial), and `full` on masks."""
    toy = ToyStore(root)
    toy.trial(toy.run("cam0", "cam"), "cam", objective=0.46)
    toy.trial(
        toy.run("cam1", "cam", trial=1, status="pruned"),
        "cam",
        trial=1,
        status="pruned",
        reached=0.5,
        objective=0.3,
    )
    toy.evaluate("cam0", "cam", 24, rule="fixed")
    toy.evaluate("cam0", "cam", 20)
    toy.evaluate("cam0", "cam", 16, rule="oracle")
    toy.evaluate("cam0", "segmentation", 20)
    for name in ("fsr", "twin"):
        toy.trial(toy.run(f"{name}0", name), name, objective=0.71)
        toy.trial(
            toy.run(
                f"{name}bad",
                name,
                trial=1,
                status="failed",
                error_class="bug",
                error_message="Traceback\n  File x\nNonFiniteLoss: step 7, term ptc is nan",
            ),
            name,
            trial=1,
            status="failed",
            reached=0.1,
            objective=None,
        )
        toy.run(f"{name}1", name, seed=1)
        for seed, (cam, seg) in enumerate(((16, 10), (14, 8))):
            toy.trial(f"{name}{seed}", name, trial=0, role="final", objective=0.7)
            toy.evaluate(f"{name}{seed}", "cam", cam)
            toy.evaluate(f"{name}{seed}", "pseudo", cam - 2)
            toy.evaluate(f"{name}{seed}", "segmentation", seg)
            toy.evaluate(f"{name}{seed}", "segmentation", seg - 1, weights="teacher")
    toy.trial(toy.run("full0", "full", supervision="masks"), "full", objective=0.86)
    toy.trial(toy.run("full1", "full", supervision="masks", trial=1), "full", trial=1, objective=0.86)
    toy.evaluate("full0", "segmentation", 4)
    toy.evaluate("full1", "segmentation", 6)
    return toy
