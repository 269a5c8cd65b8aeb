"""Reading the store into one data frame per table, past damaged files and older schema versions."""

from __future__ import annotations

import hashlib
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from harness.errors import HarnessWarning, StoreError
from harness.files import local_root, plain_words
from harness.store.files import (
    COMPACT_PREFIX,
    check_version,
    in_pieces,
    list_files,
    live_among,
    member_of,
    members,
    why_left_out,
)
from harness.store.results import Results
from harness.store.schema import SCHEMAS, empty, table_schema

STATUS_ORDER = ("done", "pruned", "failed")
BY_STATUS = pl.col("status").replace_strict({s: i for i, s in enumerate(STATUS_ORDER)}, default=len(STATUS_ORDER))
"""Sorts rows so that the best outcome of several attempts comes first."""
_PATIENCE_S = 30.0
"""For so long reading is tried again where files are merged meanwhile."""
_TOGETHER, _BYTES_TOGETHER = 256, 16 << 20
"""Files, and their bytes on disk, that are read at a time where nothing but whether they can be is asked."""
_MARK = re.compile("[~-]")
_CAST = pl.ScanCastOptions(integer_cast=["upcast", "allow-float"], float_cast=["upcast"])


class StoreWarning(HarnessWarning):
    """A file of the store is damaged and was set aside, or is left out."""


class MissingRows(StoreError):
    """Rows that a run should have are not in the store, or their file is damaged: running it again brings them."""


@dataclass(frozen=True)
class Damaged:
    """A file that cannot be read, and why."""

    path: Path
    reason: str


def load(path: str | Path, tables: Iterable[str] | None = None, only: Mapping[str, pl.Expr] | None = None) -> Results:
    """All rows of the store at `path`, or those of `tables` alone, and reading another then raises StoreError; no store
    yet is an empty one.

    `only` names for a table what its rows must fulfil; others never fill the memory. A damaged file is named in a
    StoreWarning and moved to `<path>/damaged/`, a file of a newer version or a link to nothing is named and left where
    it is; the rest loads. Raises StoreError for a store that the system refuses to read.
    """
    root = local_root(path)
    wanted = dict.fromkeys(SCHEMAS if tables is None else tables)
    for table in wanted:
        table_schema(table)
    where = only or {}
    return Results(**{table: _table(root, table, where.get(table)) for table in wanted})


def load_of(path: str | Path, tables: Iterable[str], *, keys: Iterable[str], evals: Iterable[str]) -> Results:
    """The rows of these runs and evals in `tables`, whatever later attempt, rung or scoring wrote them; files of others
    are not opened. Damaged files and errors as in `load`."""
    root = local_root(path)
    rows = {"key": sorted(keys), "eval": sorted(evals)}
    names = frozenset((*rows["key"], *rows["eval"]))
    found = {}
    for table in tables:
        column = "eval" if "eval" in table_schema(table) else "key"
        found[table] = _table(root, table, pl.col(column).is_in(rows[column]), names)
    return Results(**found)


def latest_runs(runs: pl.DataFrame) -> pl.DataFrame:
    """One row per key: done before pruned before failed, then the one that started last."""
    ranked = runs.sort(BY_STATUS, pl.col("started").str.to_datetime(time_zone="UTC", strict=False),
                       descending=[False, True], nulls_last=True, maintain_order=True)  # fmt: skip
    return ranked.unique("key", keep="first", maintain_order=True)


def digest(results: Results, key: str | None = None) -> str:
    """Digest of what equal results share: counts, curves, params, status and seed (design section 4).

    Of the run `key` only where given. Order of rows and number of files do not enter.
    """
    runs = latest_runs(results.runs).select("key", "status", "seed")
    evals = results.evals.select("key", "eval")
    params, counts, curves = results.params, results.counts, results.curves
    if key is not None:
        runs, params = runs.filter(pl.col("key") == key), params.filter(pl.col("key") == key)
        mine = evals.filter(pl.col("key") == key)
        counts, curves = (t.join(mine, on="eval", how="semi") for t in (counts, curves))
    hasher = hashlib.sha256()
    for name, table in (("runs", runs), ("params", params), ("counts", counts), ("curves", curves)):
        rows = table.unique().sort(table.columns, nulls_last=True)
        hasher.update(f"{name} {rows.height}\n".encode())
        for column in rows.iter_columns():
            hasher.update(_column_bytes(column))
    return hasher.hexdigest()


def _column_bytes(column: pl.Series) -> bytes:
    valid = column.is_not_null().to_numpy().tobytes()
    if column.dtype == pl.Utf8:
        text = column.fill_null("")
        return valid + text.str.len_bytes().to_numpy().tobytes() + "".join(text.to_list()).encode()
    # Adding 0.0 makes -0.0 and 0.0 the same bytes.
    values = column.fill_null(0) + 0.0 if column.dtype.is_float() else column.fill_null(0)
    return valid + values.to_numpy().tobytes()


def _table(root: Path, table: str, only: pl.Expr | None, names: Set[str] | None = None) -> pl.DataFrame:
    for _ in _attempts():
        try:
            rows = scan_files(table, _live_files(root, table, names))
            # One chunk a file would make every filter of a large store slow.
            return (rows if only is None else rows.filter(only)).collect().rechunk()
        except FileNotFoundError:
            continue  # merged by a `compact` that runs now: list again
        except pl.exceptions.PolarsError:
            if not set_damaged_aside(root, table):
                raise
        except OSError as error:
            raise StoreError(f"{root / table} cannot be read: {plain_words(error)}") from error
    raise StoreError(f"{root / table} kept changing while it was read")


def read_files(table: str, files: list[Path], path_column: str | None = None) -> pl.DataFrame:
    """All rows of these files of a table in their order, columns of older versions filled with nulls.

    `path_column` adds the path of each row's file. Raises polars errors where a file is damaged.
    """
    return scan_files(table, files, path_column).collect()


def scan_files(table: str, files: list[Path], path_column: str | None = None) -> pl.LazyFrame:
    """`read_files` before anything is read, for slices and filters."""
    extra = {path_column: pl.Utf8()} if path_column else {}
    if not files:
        return empty(table).with_columns(pl.lit(None, t).alias(c) for c, t in extra.items()).lazy()
    schema = table_schema(table)
    frame = pl.scan_parquet(
        files,
        schema=schema,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=_CAST,
        glob=False,
        include_file_paths=path_column,
    )
    return frame.select([*schema, *extra])


def _attempts() -> Iterator[None]:
    """Turns to read what others may be merging: at once, then for a while, with longer and longer pauses."""
    end, pause = time.monotonic() + _PATIENCE_S, 0.01
    yield
    while time.monotonic() < end:
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
        yield


def _live_files(root: Path, table: str, names: Set[str] | None = None) -> list[Path]:
    """The files whose rows no other merged file holds; they overlap when a `compact` died before removing. With
    `names` those that may hold rows of one of them: what is written as `x` is called x, x~2, x-rung50, ..."""
    files = []
    for file in list_files(root, table):
        if names is not None and not file.name.startswith(COMPACT_PREFIX) and names.isdisjoint(_beginnings(file.stem)):
            continue
        if why := why_left_out(file):
            warnings.warn(f"{why}; left out", StoreWarning, stacklevel=5)
        else:
            files.append(file)
    return sorted(live_among(files))


def _beginnings(stem: str) -> list[str]:
    """The names under which the rows of a file may have been written."""
    return [stem, *(stem[: mark.start()] for mark in _MARK.finditer(stem))]


def read_one(root: Path, table: str, name: str, only: pl.Expr | None = None) -> pl.DataFrame:
    """The rows written as `name`, those that `only` holds for; nothing else of a merged file is read.

    Raises MissingRows when there are none of that name or their file is damaged, StoreError when the system fails.
    """
    own = root / table / f"{name}.parquet"
    for _ in _attempts():
        try:
            rows = _scan_one(root, table, name)
            return (rows if only is None else rows.filter(only)).collect()
        except FileNotFoundError:
            continue  # merged by a `compact` that runs now: look again
        except pl.exceptions.PolarsError as error:
            raise MissingRows(f"{own} cannot be read: {_unreadable(error)}") from error
        except OSError as error:
            raise StoreError(f"{own} cannot be read: {plain_words(error)}") from error
    raise StoreError(f"{own} kept moving while it was read")


def _scan_one(root: Path, table: str, name: str) -> pl.LazyFrame:
    own = root / table / f"{name}.parquet"
    if own.exists():
        check_version(own)
        return scan_files(table, [own])
    merged = member_of(root, table, name)
    if merged is None:
        raise MissingRows(f"the store has no {table}/{name}")
    check_version(merged)
    start = 0
    for member, rows in members(merged).items():
        if member == name:
            return scan_files(table, [merged]).slice(start, rows)
        start += rows
    raise MissingRows(f"{merged} does not hold {name}")


def find_damaged(root: Path, table: str) -> list[Damaged]:
    """Read every file of a table; those that cannot be read."""
    return examine(root, table).damaged


@dataclass(frozen=True)
class Examined:
    """The files of a table after each was read: those that cannot be, those that are left out and why, the rest."""

    damaged: list[Damaged]
    left_out: dict[Path, str]
    rows: pl.DataFrame
    """Different rows of the columns that were asked for."""


def examine(root: Path, table: str, columns: Sequence[str] = ()) -> Examined:
    """Read every file of a table once, and keep what is in some `columns`."""
    found = Examined([], {}, empty(table).select(columns))
    parts = [found.rows]
    pieces = list(in_pieces(list_files(root, table), _BYTES_TOGETHER, _TOGETHER))
    while pieces:
        piece = pieces.pop(0)
        try:
            left_out = {file: why for file in piece if (why := why_left_out(file))}
            readable = [file for file in piece if file not in left_out]
            for file in readable:
                members(file)
            parts.append(read_files(table, readable).select(columns).unique())
            found.left_out.update(left_out)
        except (pl.exceptions.PolarsError, OSError) as error:
            if len(piece) > 1:
                pieces = [[file] for file in piece] + pieces
            elif isinstance(error, pl.exceptions.PolarsError):
                found.damaged.append(Damaged(piece[0], _unreadable(error)))
            elif not isinstance(error, FileNotFoundError):
                raise StoreError(f"{piece[0]} cannot be read: {plain_words(error)}") from error
    return replace(found, rows=pl.concat(parts).unique())


def set_damaged_aside(root: Path, table: str) -> list[Damaged]:
    """Move the files of a table that cannot be read to `<root>/damaged/`, each with a StoreWarning; which they were."""
    damaged = find_damaged(root, table)
    for item in damaged:
        _set_aside(root, item)
    return damaged


_PARQUET = "parquet: File out of specification: "
_NO_END = ("must end with PAR1", "must contain a header and footer")


def _unreadable(error: pl.exceptions.PolarsError) -> str:
    """Why a file cannot be read, for a reader who does not know Parquet."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    if not text.startswith(_PARQUET):
        return text
    return "it is cut short, or no Parquet file" if any(t in text for t in _NO_END) else "its bytes have changed"


def _set_aside(root: Path, item: Damaged) -> None:
    """Move a damaged file to `<root>/damaged/` and say so in a StoreWarning; StoreError when that fails."""
    target = root / "damaged" / f"{item.path.parent.name}-{item.path.name}"
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{item.path.parent.name}-{item.path.stem}.{number}.parquet")
    try:
        target.parent.mkdir(exist_ok=True)
        os.rename(item.path, target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{item.path} is damaged ({item.reason}) and cannot be set aside: "
                         f"{plain_words(error)}") from error  # fmt: skip
    warnings.warn(f"{item.path} is damaged ({item.reason}); moved to {target}", StoreWarning, stacklevel=5)
