"""A plan of real words over a store with made-up scores: what the driver reads and writes, without any training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.plan.payload import Payload
from harness.plan.plan import Plan, make_plan
from harness.store import SCHEMAS, Store
from harness.store.rows import param_rows
from harness.tuning.ledger import Ledger

SMALL = ["data.n_train=16", "data.n_val=8", "data.n_test=8", "crop=48", "batch=4", "group=2", "iterations=12"]


def plan(root: Path, *words: str, single: bool = False) -> Plan:
    """The plan of `methods=cam` with these words, its store at `root`."""
    command, name = ("train", "method=cam") if single else ("sweep", "methods=cam")
    given = [name, *SMALL, f"store={root}", *words]
    return make_plan(parse(given, Words, command, registry().names()), single=single)


def ledger(root: Path, *words: str, retry_failed: bool = False) -> Ledger:
    """A fresh driver's ledger over the store at `root`."""
    return Ledger(plan(root, *words), Store(root), retry_failed=retry_failed)


def resolved(of: Ledger, knobs: Mapping[str, Any] | None = None) -> Payload:
    """The run of the ledger's first study, with these knobs."""
    planned = of.plan.studies[0]
    return of.resolve(planned.study, knobs or {}, planned.run.seed)


def write_done(of: Ledger, scores: Mapping[str, int], knobs: Mapping[str, Any] | None = None) -> str:
    """A finished run whose segmenter got `scores[split]` of 10 pixels right on that split; its key."""
    payload = resolved(of, knobs)
    key = payload.key
    evals = [
        {
            "eval": f"{key}-{split}", "key": key, "target": "segmentation", "weights": "student", "step": 12,
            "split": split, "tags": "none", "scales": "1", "flip": False, "fusion": "max", "crf": "none",
            "threshold_rule": "none", "threshold": None, "protocol": "held-out", "images": 1, "seconds": 0.0,
        }
        for split in scores
    ]  # fmt: skip
    counts = [
        {"eval": f"{key}-{split}", "image": "i", "class": 0, "tp": right, "fp": 0, "fn": 10 - right}
        for split, right in scores.items()
    ]
    of.store.write("evals", key, pl.DataFrame(evals, schema=SCHEMAS["evals"]))
    of.store.write("counts", key, pl.DataFrame(counts, schema=SCHEMAS["counts"]))
    of.store.write("params", key, param_rows(key, payload.run.knobs))
    of.store.write("runs", key, pl.DataFrame([payload.row("done")]))
    return key
