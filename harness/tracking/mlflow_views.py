"""What MLflow shows first: saved views of the experiment's table, and a description that leads to leaderboards.

Without a view MLflow 3.17 opens on one closed row per sweep, without a score. A saved view is a tag of the experiment
(`savedViewEnvelope.ts` of MLflow's own pages): a name, two times and the state of the table, as JSON in JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from harness.tracking.mlflow_names import OBJECTIVE, SCORE

RUNS = "runs"
"""The view that the printed address opens."""
PREFIX = "mlflow.sharedViewState."
NOTE = "mlflow.note.content"
BOARDS = "Leaderboard and page of: "
"""Begins the description; one that begins otherwise is somebody's own and stays."""
_MASKS = f"{SCORE}segmentation/"
_FIRST = {"1": 34, "attributes.`Run Name`": 250, "runDateAndNestInfo": 150, "duration": 80}
"""Pixels of the columns that MLflow shows of itself; it takes widths of columns only with their order."""
_SHOWN = 3
"""Ways of scoring that are columns of the first views."""


def views(scored: Iterable[str], mine: Mapping[str, str]) -> dict[str, str]:
    """Tags of the experiment that are to be set: its views of runs, studies and sweeps, best or newest first.

    `scored`: names of metrics, each as often as a run has it; `mine`: the tags that the experiment has. A view that
    somebody has changed in MLflow stays as it is.
    """
    counts = Counter(name for name in scored if name == OBJECTIVE or name.startswith(SCORE))
    found = sorted(counts, key=lambda n: (n == OBJECTIVE, "oracle" in n, not n.startswith(_MASKS), -counts[n], n))
    columns = [_metric(n) for n in found[:_SHOWN]] + [_metric(OBJECTIVE)] * (OBJECTIVE in found[_SHOWN:])
    order = {"orderByKey": columns[0], "orderByAsc": False} if columns else {}
    facts = [_param(name) for name in ("method", "dataset", "supervision", "backbone", "seed")]
    told = [_param("methods"), _param("dataset"), *map(_metric, ("runs/done", "runs/failed", "hours"))]
    states: dict[str, tuple[str, dict[str, Any]]] = {
        "sweeps": ("Sweeps", {"selectedColumns": told}),
        "studies": ("Studies, best first", {**order, "selectedColumns": [*columns, *facts]}),
        RUNS: ("Runs, best first", {**order, "selectedColumns": [*columns, *facts, "tags.`role`"]}),
    }
    wanted = {}
    for at, (view, (name, state)) in enumerate(states.items(), start=1):
        kind = {"sweeps": "sweep", "studies": "study", RUNS: "run"}[view]
        widths = _FIRST | dict.fromkeys(state["selectedColumns"], 150)
        columns_of = {"columnWidths": widths, "columnOrder": list(widths)}
        whole = {"searchFilter": f"tags.kind = '{kind}'", **columns_of, **state}
        wanted[PREFIX + view] = json.dumps({"name": name, "createdAt": at, "updatedAt": at, "state": json.dumps(whole)})
    return {tag: text for tag, text in wanted.items() if mine.get(tag) != text and not _changed(mine.get(tag))}


def note(links: Iterable[tuple[str, str]], mine: Mapping[str, str]) -> dict[str, str]:
    """The experiment's description with links (text, address), where it is to be set."""
    text = BOARDS + " · ".join(f"[{name}]({address})" for name, address in links)
    old = mine.get(NOTE, "")
    return {} if text in (old, BOARDS) or (old and not old.startswith(BOARDS)) else {NOTE: text}


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"


def _changed(view: str | None) -> bool:
    """Whether somebody has saved a view of ours anew: MLflow then writes the hour."""
    if view is None:
        return False
    try:
        envelope = json.loads(view)
        return bool(envelope["createdAt"] != envelope["updatedAt"])
    except (ValueError, TypeError, KeyError):
        return False
