"""What stands behind every number: labels, pretraining, data, code, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import command
from harness.store.pretraining import UNKNOWN, Pretraining
from reports.format.html import Block
from reports.format.table import Cell, Column, Section
from reports.page.view import View, board_name
from reports.rows.data import from_json
from reports.rows.ranking import Board
from reports.rows.row import Row

DIGITS = 8
"""Of a digest, on the page."""
SPLITS = ("train", "tune", "report", "images", "weak")
LEAD = (
    "Rows of this harness see their training images, their labels and their pretraining, and nothing else: what words "
    "of the data add stands at the end. What other programs saw is what their owners say."
)
NO_WORDS = ("plan", "rows", "dry_run", "address", "ray", "store", "mlflow")
"""Words of a sweep that change nothing about a result, or that its other words already hold."""


def ledger(view: View) -> list[Block]:
    """For each board what its rows learned from."""
    return [Section("What each row learned from", _LEDGER, tuple(_learned(row) for row in board.group.rows),
                    caption=board_name(board), kind="ledger") for board in view.boards]  # fmt: skip


def provenance(view: View) -> list[Block]:
    """For each board where its rows come from, and how they are made again."""
    return [_origin(view, board) for board in view.boards]


_LEDGER = (
    Column("method", "method"), Column("labels", "labels"), Column("weights", "weights"),
    Column("pretraining", "pretrained on"), Column("extra", "extra data"), Column("backbone", "backbone"),
    Column("decoder", "decoder"), Column("iterations", "iterations", right=True), Column("words", "words of the data"),
)  # fmt: skip


def _learned(row: Row) -> dict[str, Cell]:
    every = {"": row.pretraining, **row.pretraining.networks}
    return {
        "method": row.title, "labels": row.labels, "weights": _by_network(every, "weights"),
        "pretraining": _by_network(every, "learned"), "extra": _by_network(every, "extra"),
        "backbone": row.backbone, "decoder": row.decoder,
        "iterations": _all(row.iterations), "words": " ".join(f"data.{k}={v}" for k, v in row.data.options) or None,
    }  # fmt: skip


def _by_network(every: Mapping[str, Pretraining], what: str) -> str:
    """Of the first network, and of those that started from other weights."""
    return "; ".join(f"{name} {getattr(one, what) or UNKNOWN}".strip() for name, one in every.items())


def _origin(view: View, board: Board) -> Section:
    columns = (
        Column("method", "method"), Column("command", "made again by"), Column("commit", "commit"),
        Column("seeds", "seeds"), Column("runs", "runs"), Column("data", "fingerprints of the data"),
        Column("machine", "machine"),
    )  # fmt: skip
    lines = tuple(_line(view, row) for row in board.group.rows)
    return Section("Where each row comes from", columns, lines, caption=board_name(board), kind="provenance")


def _line(view: View, row: Row) -> dict[str, Cell]:
    runs = [view.runs[k] for k in row.keys if k in view.runs]
    prints = from_json(runs[0]["split_fingerprints"]) if runs else {}
    machines = (f"{r['device']}, {r['precision']}, {r['world_size'] or 1} x {r['threads'] or 1}" for r in runs)
    return {
        "method": view.name(row), "seeds": _all(row.seeds), "commit": _all(r["git_commit"] for r in runs) or "unknown",
        "runs": _all(key[:DIGITS] for key in row.keys), "machine": _all(machines),
        "data": ", ".join(f"{n} {str(prints[n])[:DIGITS]}" for n in SPLITS if prints.get(n)) or None,
        "command": command_of(view, row),
    }  # fmt: skip


def command_of(view: View, row: Row) -> str:
    """The command that makes a row again: of the sweep that made it, where the store has its words, else from the
    row itself, with the path of its data left open."""
    run = view.runs[row.keys[0]]
    if row.foreign:
        return command("harness.evaluate", name=row.method)
    words = view.words.get(str(run["sweep"]), ())
    planned = [w for w in words if _plans(w, row)]
    if planned:
        return command("harness.sweep", **{k: v for k, v in planned[0].items() if k not in NO_WORDS})
    name, _, place = row.dataset.partition(":")
    root = {"data.root": f"<folder of {place}>"} if place else {}
    given = {f"data.{k}": v for k, v in row.data.options}
    return command(
        "harness.sweep", methods=row.method, labels=None if row.supervision in ("tags", "masks") else row.supervision,
        data=name, **root, **given, variant=row.variant, tier=row.tier, protocol=row.protocol, trials=row.trials,
        seeds=len(row.seeds), backbone=row.backbone, ablation=row.ablation or None,
    )  # fmt: skip


def _plans(words: Mapping[str, str], row: Row) -> bool:
    """Whether these words of a sweep plan the row's method with its ablation."""
    methods = [m.strip() for m in words.get("methods", words.get("method", "all")).split(",")]
    ablations = [a.strip().rpartition(".")[2] for a in words.get("ablation", "").split(",") if a.strip()]
    named = row.ablation.replace(",", " ").split()
    return bool({"all", row.method} & set(methods)) and all(n.rpartition(".")[2] in ablations for n in named)


def _all(values: Any) -> str:
    """Each different value once, in order."""
    return ", ".join(dict.fromkeys(str(v) for v in values if v not in (None, "")))
