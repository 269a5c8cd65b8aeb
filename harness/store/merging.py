"""Merging a table's small files into larger ones, and taking a run out of them again. Rows never change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from harness.errors import StoreError
from harness.store.files import (
    COMPACT_PREFIX,
    MEMBERS_FIELD,
    in_pieces,
    list_files,
    live_among,
    mark_merged,
    members,
    size_of,
    why_left_out,
    write_atomic,
)
from harness.store.reading import read_files, set_damaged_aside
from harness.store.schema import SCHEMAS

PIECE, TOGETHER = 2 << 20, 256
"""Bytes on disk, and files, that are merged at a time; larger files stay as they are. Rows take ten to sixty times as
much memory, three times over while they are merged."""
_FILE = "file of the row"


def merge(root: Path, table: str, done: set[str], owner: Mapping[str, str]) -> list[Path]:
    """Merge the small files of a table whose runs are `done`; the new files. `owner` maps evals to runs."""
    own = [file for file in list_files(root, table) if not why_left_out(file)]
    live = sorted(live_among(own))
    # What a merge that died has left: in a piece apart from the file that holds it, it would be counted twice.
    for file in set(own) - set(live):
        file.unlink(missing_ok=True)
    small = [file for file in live if size_of(file) < PIECE]
    merged = (_merge(root, table, files, done, owner) for files in in_pieces(small, PIECE, TOGETHER))
    return [file for file in merged if file is not None]


def take_out(root: Path, table: str, name: str) -> Path | None:
    """Give `name` its own file again where a merged one holds it; the merged file that was rewritten without it.

    Merged files that cannot be read are set aside. Interrupted anywhere, no row is lost and none counts twice.
    """
    try:
        held = _holding(root, table, name)
    except pl.exceptions.PolarsError:
        set_damaged_aside(root, table)
        held = _holding(root, table, name)
    for file, parts in held.items():
        # First the single file: as long as the old merged one is there, its rows are not counted.
        write_atomic(parts.pop(name), root / table / f"{name}.parquet")
        if parts:
            _write(root, table, parts)
        file.unlink()
        mark_merged(root)
    return next(iter(held), None)


def _holding(root: Path, table: str, name: str) -> dict[Path, dict[str, pl.DataFrame]]:
    """The merged files that hold `name`, with the rows of all their members."""
    merged = [f for f in list_files(root, table) if f.name.startswith(COMPACT_PREFIX) and not why_left_out(f)]
    return {f: _by_member(read_files(table, [f], _FILE)) for f in merged if name in members(f)}


def _merge(root: Path, table: str, files: list[Path], done: set[str], owner: Mapping[str, str]) -> Path | None:
    rows = read_files(table, files, _FILE)
    open_files = set(rows.filter(~_settled(table, done, owner))[_FILE])
    rows = rows.filter(~pl.col(_FILE).is_in(open_files))
    merged = [Path(text) for text in rows[_FILE].unique(maintain_order=True)]
    if len(merged) < 2:
        return None
    target = _write(root, table, _by_member(rows))
    for file in merged:
        if file != target:
            file.unlink(missing_ok=True)
    return target


def _by_member(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Rows by the name that they were written as; `rows` has the column of files, each file's rows in one stretch."""
    frames: dict[str, pl.DataFrame] = {}
    start = 0
    for text, height in rows.group_by(_FILE, maintain_order=True).len().iter_rows():
        for name, count in members(Path(text)).items():
            length = height if count < 0 else count
            frames.setdefault(name, rows.slice(start, length).drop(_FILE))
            start += length
    return frames


def _write(root: Path, table: str, frames: Mapping[str, pl.DataFrame]) -> Path:
    """One merged file of these members, read back before anything that it replaces may go."""
    names = sorted(frames)
    whole = pl.concat([frames[name] for name in names])
    lengths = json.dumps({name: frames[name].height for name in names})
    target = root / table / f"{COMPACT_PREFIX}{hashlib.sha256(lengths.encode()).hexdigest()[:20]}.parquet"
    write_atomic(whole, target, {MEMBERS_FIELD: lengths})
    if not read_files(table, [target]).equals(whole, null_equal=True):
        target.unlink()
        raise StoreError(f"{target} did not read back as written; nothing was removed")
    mark_merged(root)
    return target


def _settled(table: str, done: set[str], owner: Mapping[str, str]) -> pl.Expr:
    """Whether a row's file is final: no later attempt of its run may write it anew."""
    if "key" in SCHEMAS[table] and table not in ("runs", "trials"):
        return pl.col("key").is_in(done)
    if "eval" in SCHEMAS[table]:
        return pl.col("eval").is_in({e for e, key in owner.items() if key in done})
    return pl.lit(True)
