"""Writing the store: one file per run or eval and table, once and atomically (design section 4, Store)."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from harness.errors import BadInput, Problem, StoreError
from harness.files import atomic, local_root, plain_words
from harness.store.files import COMPACT_PREFIX, member_of, write_atomic
from harness.store.reading import read_one
from harness.store.schema import conform, table_schema

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=~-]*")


class Store:
    """A folder of results that is only ever added to. Many processes may write at once."""

    def __init__(self, root: str | Path) -> None:
        self.root = local_root(root)

    def path(self, table: str, name: str) -> Path:
        """Where the file `name` of `table` lies: `<root>/<table>/<name>.parquet`."""
        table_schema(table)
        if not _NAME.fullmatch(name) or name.startswith(COMPACT_PREFIX):
            raise StoreError(f"{name!r} cannot name a file of the store")
        return self.root / table / f"{name}.parquet"

    def work(self, key: str) -> Path:
        """Folder for the checkpoints and maps of the run `key`."""
        return self.root / "work" / key

    def has(self, table: str, name: str) -> bool:
        """Whether `name` was written, also when `compact` has merged its file since."""
        return self.path(table, name).exists() or member_of(self.root, table, name) is not None

    def read(self, table: str, name: str, only: pl.Expr | None = None) -> pl.DataFrame:
        """The rows written as `name` (those that `only` holds for), merged since or not.

        Raises MissingRows when they are absent or damaged.
        """
        return read_one(self.root, table, name, only)

    def write(self, table: str, name: str, df: pl.DataFrame, *, again: bool = False) -> Path:
        """Write `df` as the file `name` of `table`; equal content that is already there is left as it is.

        Different content is refused, or with `again` (a failed run that ran a second time) written beside
        it as `<name>~2`, `~3`, ... Raises StoreError, with the store as it was, when anything goes wrong.
        """
        rows = conform(table, df)
        for attempt in range(1, 1000):
            target = name if attempt == 1 else f"{name}~{attempt}"
            if not self.has(table, target):
                write_atomic(rows, self.path(table, target))
                return self.path(table, target)
            if self.read(table, target).equals(rows, null_equal=True):
                return self.path(table, target)
            if not again:
                break
        raise StoreError(f"{self.path(table, name)} is already written, with other content")

    def check_writable(self) -> None:
        """Write and remove a small file, so that a store that cannot be written is known before any work."""
        probe = self.root / ".probe"
        try:
            with atomic(probe) as tmp:
                tmp.write_bytes(b"\0" * 4096)
            probe.unlink(missing_ok=True)
        except OSError as error:
            fix = "free space or name another folder with store="
            raise BadInput(Problem("store", f"{self.root} cannot be written: {plain_words(error)}", fix)) from error
