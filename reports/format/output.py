"""How a report leaves: its words checked, its table rendered, or its data frame written as Arrow or Parquet."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import BadInput, Problem
from reports.format.render import FORMATS, render
from reports.format.table import Table

BINARY = ("arrow", "parquet")
ALL_FORMATS = (*FORMATS, *BINARY)
NETWORKS = ("student", "teacher")
STORE_TEXT = "folder of results"
OUT_TEXT = "file to write; default the terminal (arrow, parquet: standard output when piped)"
WEIGHTS_TEXT = "student or teacher"


def output_problems(words: Any, *, store_exists: bool = True) -> list[Problem]:
    """What is wrong with the words store, format and out of a report, beyond their values."""
    problems = []
    if store_exists and not Path(words.store).is_dir():
        problems.append(Problem("store", f"{words.store} is no folder", "name the store= of a sweep"))
    if words.format in BINARY and words.out is None and sys.stdout.isatty():
        problems.append(Problem("out", f"{words.format} is no text for a terminal", f"add out=table.{words.format}"))
    if words.out and not Path(words.out).resolve().parent.is_dir():
        problems.append(Problem("out", f"{Path(words.out).parent} does not exist", "make the folder first"))
    return problems


def deliver(words: Any, table: Table, frame: Callable[[], pl.DataFrame]) -> None:
    """Write the table, or the data frame for arrow and parquet, where `out` says. Raises BadInput for a bad file."""
    content = _binary(frame(), words.format) if words.format in BINARY else _text(table, words).encode()
    if words.out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        Path(words.out).write_bytes(content)
    except OSError as error:
        problem = Problem("out", f"{words.out} cannot be written: {error.strerror}", "name another file")
        raise BadInput(problem) from error
    print(f"written: {words.out}", file=sys.stderr)


def screen_width() -> int | None:
    """Characters in a line of the standard output: of its terminal, or as COLUMNS says; None where nobody says."""
    said = os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if said or sys.stdout.isatty() else None


def _text(table: Table, words: Any) -> str:
    colour = words.out is None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return render(table, words.format, width=screen_width() if words.out is None else None, colour=colour)


def _binary(frame: pl.DataFrame, form: str) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer) if form == "parquet" else frame.write_ipc(buffer)
    return buffer.getvalue()
