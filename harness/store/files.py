"""Files of the store: their names, how they are written whole or not at all, what merged ones hold."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import polars as pl

from harness.datasets.io.opening import NotPlain, opened_plain
from harness.errors import StoreError
from harness.files import plain_words, way_out, write_bytes
from harness.store.schema import SCHEMA_VERSION

VERSION_FIELD = "schema_version"
MEMBERS_FIELD = "members"
COMPACT_PREFIX = "compact-"


def parquet_bytes(df: pl.DataFrame, metadata: Mapping[str, str] | None = None) -> bytes:
    """`df` as a Parquet file (zstd) with the schema version in its metadata."""
    buffer = io.BytesIO()
    fields = {VERSION_FIELD: str(SCHEMA_VERSION), **(metadata or {})}
    df.write_parquet(buffer, compression="zstd", metadata=fields)
    return buffer.getvalue()


def write_atomic(df: pl.DataFrame, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write `df` so that `path` holds all of it or does not exist, whatever happens.

    Raises StoreError in plain words; the temporary file is removed.
    """
    # Bytes first: a full disk is then an OSError with its errno, never an error of the Parquet writer.
    content = parquet_bytes(df, metadata)
    try:
        write_bytes(path, content)
    except OSError as error:
        raise StoreError(f"{path} could not be written: {plain_words(error)}; {way_out(error)}") from error


def list_files(root: Path, table: str) -> list[Path]:
    """All Parquet files of a table, sorted by name; files half written are not among them."""
    try:
        with os.scandir(root / table) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(".parquet") and not e.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{root / table} could not be read: {plain_words(error)}") from error
    return [root / table / name for name in names]


def size_of(file: Path) -> int:
    """Bytes; none where there is nothing that could be asked: whoever reads it says what is wrong."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def in_pieces(files: Iterable[Path], most_bytes: int, most: int | None = None) -> Iterator[list[Path]]:
    """Files in their order, as many at a time as have at most so many bytes together, and are at most so many; a larger
    file stands alone."""
    piece: list[Path] = []
    total = 0
    for file in files:
        size = size_of(file)
        if piece and (total + size > most_bytes or len(piece) == most):
            yield piece
            piece, total = [], 0
        piece.append(file)
        total += size
    if piece:
        yield piece


class NewerFile(StoreError):
    """A newer version of the harness wrote this file: it is neither read nor written over."""


def check_version(file: Path) -> None:
    """NewerFile when a newer version of the harness wrote `file`; polars errors when it is unreadable."""
    if _says_today(file):
        return
    version = str(pl.read_parquet_metadata(file).get(VERSION_FIELD, SCHEMA_VERSION))
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        raise NewerFile(f"{file} has schema version {version}, this harness reads up to {SCHEMA_VERSION}: update it")


_TAIL = 1 << 14
_TODAY = b"\x18\x0e" + VERSION_FIELD.encode() + b"\x18\x01" + str(SCHEMA_VERSION).encode()
"""The field and its value as Parquet's footer has them (Thrift's compact protocol: type, length, bytes)."""


def _says_today(file: Path) -> bool:
    """Whether the end of `file` is a whole footer that names today's version: a small part of what parsing all of its
    metadata costs, in stores of thousands of files. False says nothing."""
    with opened_plain(file) as content:
        size = content.seek(0, os.SEEK_END)
        content.seek(max(0, size - _TAIL))
        tail = content.read()
    length = int.from_bytes(tail[-8:-4], "little")
    return tail.endswith(b"PAR1") and length + 8 <= len(tail) and _TODAY in tail[-8 - length : -8]


def why_left_out(file: Path) -> str:
    """Why a file is left alone, which blocks no other: a link to nothing, a folder or pipe, a newer version; else
    empty.

    Polars errors when it is damaged.
    """
    if is_dangling(file):
        return f"{file} is a link to {os.readlink(file)}, where there is nothing"
    try:
        check_version(file)
    except NewerFile as error:
        return str(error)
    except NotPlain as error:
        return f"{file} is {error.strerror}"
    return ""


def is_dangling(file: Path) -> bool:
    """Whether it is a link to nothing: of a disk that is not mounted, for instance."""
    return file.is_symlink() and not file.exists()


def members(file: Path) -> dict[str, int]:
    """Names of the files that `file` holds, with their numbers of rows; one not merged holds itself."""
    if not file.name.startswith(COMPACT_PREFIX):
        return {file.stem: -1}
    return dict(_merged(str(file)))


def live_among(files: Iterable[Path]) -> list[Path]:
    """The files that hold what no larger one of them holds whole: they overlap where a merge died before removing.

    Polars errors where a merged one is damaged.
    """
    contents = {file: members(file) for file in files}
    live: list[Path] = []
    covered: set[str] = set()
    for file in sorted(contents, key=lambda f: (-len(contents[f]), f.name)):
        if not covered.issuperset(contents[file]):
            live.append(file)
            covered.update(contents[file])
    return live


@lru_cache(maxsize=256)
def _merged(file: str) -> dict[str, int]:
    try:
        found = json.loads(pl.read_parquet_metadata(file)[MEMBERS_FIELD])
        return {str(name): int(rows) for name, rows in found.items()}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise pl.exceptions.ComputeError("merged file that does not say what it holds") from error


MERGED = ".merged"
"""File of a store that changes whenever merged files do."""


def mark_merged(root: Path) -> None:
    """Tell processes that write to this store that its merged files are others now."""
    write_bytes(root / MERGED, uuid.uuid4().bytes)


def member_of(root: Path, table: str, name: str) -> Path | None:
    """The merged file that holds `name`, if any. The folder is listed once, and again when `mark_merged` says so:
    listing thousands of files takes longer than writing one."""
    try:
        folder = os.stat(root / table).st_ino
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{root / table} could not be read: {plain_words(error)}") from error
    try:
        found = os.stat(root / MERGED)
        mark = (found.st_ino, found.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        mark = (0, 0)
    for file in _merged_files(root.resolve(), table, folder, mark):
        if not is_dangling(file) and name in members(file):
            return file
    return None


@lru_cache(maxsize=256)
def _merged_files(root: Path, table: str, folder: int, mark: tuple[int, int]) -> tuple[Path, ...]:
    return tuple(file for file in list_files(root, table) if file.name.startswith(COMPACT_PREFIX))
