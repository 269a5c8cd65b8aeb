"""`python -m harness.sweep status`: what a store's sweeps are doing, also of one whose driver is dead."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Column, Table

from harness.cli.run_words import StatusWords
from harness.engine.checkpoint import found_checkpoints
from harness.engine.heartbeat import read_heartbeats
from harness.errors import EXIT_DONE, BadInput, Problem, shown
from harness.store import load
from harness.store.outlines import sweeps
from harness.store.reading import BY_STATUS
from harness.tuning.progress import clock_text

STALE_SECONDS = 120.0
"""A run whose heartbeat is older is not called running."""


def show_status(words: StatusWords) -> int:
    """Print the studies of the newest sweep and every run in progress. Raises BadInput where there is no store."""
    root = Path(words.store)
    if not root.is_dir():
        raise BadInput(Problem("store", f"{root} does not exist", "name the folder of a sweep: store=<folder>"))
    known = sweeps(root)
    # Brackets are text here: rich would take [running] for a style and drop it.
    console = Console(markup=False, highlight=False)
    if not known:
        console.print(f"no sweep has been started in {root}")
    else:
        outline = known[0]
        trials = load(root, ["trials"]).trials.filter(pl.col("sweep") == outline["sweep"])
        alive, whole = process_alive(int(outline["pid"])), finished(outline, trials)
        state = f"driver {outline['pid']} {'runs' if alive else 'does not run'}"
        console.print(f"sweep {outline['sweep']}: {'finished' if whole and not alive else state}")
        console.print(_studies(outline, trials))
    heartbeats = read_heartbeats(root)
    for heartbeat in heartbeats:
        console.print(shown(heartbeat_line(heartbeat, root)))
    if known and not heartbeats and not alive and not whole:
        console.print("nothing runs; the command that started the sweep continues it")
    return EXIT_DONE


def heartbeat_line(found: dict[str, Any], root: Path) -> str:
    """One run in progress: where it is, whether it still moves, and where it would go on."""
    age = time.time() - float(found.get("updated", 0.0))
    here = found.get("host") == socket.gethostname()
    dead = age > STALE_SECONDS or (here and not process_alive(int(found.get("pid", 0))))
    losses = "  ".join(f"{k} {v:.3f}" for k, v in found.get("losses", {}).items())
    kept = bool(found.get("folder")) and bool(found_checkpoints(root / str(found["folder"])))
    again = "from its checkpoint" if kept else f"from the start of stage {found.get('stage', '?')}"
    state = f"dead since {clock_text(age)}, goes on {again}" if dead else "running"
    return (
        f"{found.get('study', '?')} {found.get('role', '')} {found.get('trial', '')} seed {found.get('seed', '')}: "
        f"{found.get('stage', '?')} {found.get('step', 0)}/{found.get('total', 0)}  {losses}  [{state}]"
    )


def process_alive(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _trials(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per trial of a study. One that failed and ran again has a row for each attempt: the best counts."""
    return rows.filter(pl.col("role") == "trial").sort(BY_STATUS).unique("trial", keep="first")


def _finals(rows: pl.DataFrame) -> int:
    """Seeds that the chosen config has run with."""
    return int(rows.filter((pl.col("role") == "final") & (pl.col("status") == "done"))["key"].n_unique())


def finished(outline: dict[str, Any], trials: pl.DataFrame) -> bool:
    """Whether every study of a sweep has all its trials and all its seeds; `trials` are rows of that sweep alone."""
    by_study = {study["id"]: trials.filter(pl.col("study") == study["id"]) for study in outline["studies"]}
    return all(
        _trials(by_study[study["id"]]).height >= study["trials"]
        and _finals(by_study[study["id"]]) >= len(study["seeds"])
        for study in outline["studies"]
    )


def _studies(outline: dict[str, Any], trials: pl.DataFrame) -> Table:
    table = Table(Column("study", overflow="fold"), "trials", "done", "pruned", "failed", "finals", "best objective")
    for study in outline["studies"]:
        rows = trials.filter(pl.col("study") == study["id"])
        by_status = dict(_trials(rows).group_by("status").len().iter_rows())
        best = rows["objective"].max()
        table.add_row(
            study["id"],
            str(study["trials"]),
            *(str(by_status.get(s, 0)) for s in ("done", "pruned", "failed")),
            f"{_finals(rows)}/{len(study['seeds'])}",
            "-" if best is None else f"{100 * float(best):.1f}",  # type: ignore[arg-type]
        )
    return table
