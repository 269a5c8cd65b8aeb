"""What MLflow is told: plain values made from the store's rows, without MLflow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from harness.store.pretraining import pretraining_of

STATUS = {"done": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
FACTS = (
    "method",
    "variant",
    "dataset",
    "supervision",
    "backbone",
    "decoder",
    "pretraining",
    "tier",
    "iterations",
    "seed",
    "protocol",
    "device",
    "world_size",
    "threads",
    "precision",
)
"""Columns of `runs` that become params, beside the knobs."""
FORMAT = "5"
"""Raised when an export looks different: what was exported in another way is made anew."""
EXAMPLES = "examples.html"
SCORE = "miou/"
"""Begins the names of scores."""
OBJECTIVE = "objective"
"""What tuning looks at: the score of its split."""
TAGS = ("status", "error_class", "git_commit")
PARAM_LIMIT = 6000
"""Characters of a param's value that MLflow takes."""
_ILLEGAL = re.compile(r"[^\w\-. :/]")


def eval_name(row: Mapping[str, Any]) -> str:
    """`segmentation/test`, `cam/test/held-out`, ...: equal for equal scoring, so that runs line up in MLflow.

    Only what differs from the usual (truth tags on maps, student, one scale, no flip, no CRF) is added.
    """
    usual_tags = "none" if row["target"] == "segmentation" else "truth"
    parts = [row["target"], row["split"]]
    parts += [row["threshold_rule"]] if row["threshold_rule"] not in (None, "", "none") else []
    parts += [f"tags {row['tags']}"] if row["tags"] not in (None, "", usual_tags) else []
    parts += [row["weights"]] if row["weights"] not in (None, "", "student") else []
    if row["scales"] not in (None, "", "1"):
        parts.append(f"scales {row['scales'].replace(',', ' ')} {row['fusion'] or ''}".strip())
    parts += ["flip"] if row["flip"] else []
    parts += [f"crf {row['crf']}"] if row["crf"] not in (None, "", "none") else []
    return legal("/".join(str(p) for p in parts))


def unique_names(evals: pl.DataFrame) -> dict[str, str]:
    """Eval id -> name; evals that would share one get the start of their id."""
    rows = evals.sort("eval").to_dicts()
    names = [eval_name(r) for r in rows]
    return {r["eval"]: n if names.count(n) == 1 else f"{n}/{r['eval'][:8]}" for r, n in zip(rows, names, strict=True)}


def legal(name: str) -> str:
    """A name with only the characters that MLflow takes."""
    return _ILLEGAL.sub("_", name)


def facts_of(run: Mapping[str, Any]) -> dict[str, str]:
    """What the store says of a run in FACTS, as texts; its pretraining in words."""
    facts = {name: str(run[name]) for name in FACTS if run.get(name) is not None}
    return facts | ({"pretraining": pretraining_of(run["pretraining"]).text} if run.get("pretraining") else {})


def params_of(run: Mapping[str, Any], knobs: pl.DataFrame) -> dict[str, str]:
    """Facts of the run and its knobs as texts."""
    out = facts_of(run)
    for row in knobs.sort("knob").to_dicts():
        out[legal(f"{run['method']}.{row['knob']}")] = _knob_text(row)
    return {k: v[:PARAM_LIMIT] for k, v in out.items()}


def _knob_text(row: Mapping[str, Any]) -> str:
    """A knob as it is written on the command line; the store keeps texts as JSON."""
    if row["text"] is None:
        return str(row["value"])
    try:
        value = json.loads(row["text"])
    except ValueError:
        return str(row["text"])
    return value if isinstance(value, str) else str(row["text"])


def percent(share: float) -> float:
    """A share of 1 as it is shown: in per cent, as in every report, to a thousandth: MLflow shows all digits."""
    return round(100 * float(share), 3)


def started_ms(run: Mapping[str, Any]) -> int:
    """When a run started, milliseconds since 1970; 0 where the store does not say."""
    return int(datetime.fromisoformat(run["started"]).timestamp() * 1000) if run.get("started") else 0


def fingerprint(*parts: Any) -> str:
    """Digest of what was exported, by which a second export knows that nothing is new."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]
