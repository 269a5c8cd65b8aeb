"""Opening of files that others put there: what is no plain file, a pipe above all, would keep its reader for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class NotPlain(OSError):
    """A path that is no plain file; `strerror` says what it is."""


def checked_plain(path: str | Path) -> Path:
    """The path of a plain file, for a reader that opens it itself. Raises OSError as `plain_bytes`."""
    _refuse_others(os.stat(path).st_mode, path)
    return Path(path)


def plain_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """The content of a plain file, `limit` bytes of it at most. Raises OSError, `NotPlain` for what is none."""
    # A pipe is opened at once with O_NONBLOCK, and left before anything is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _refuse_others(os.fstat(descriptor).st_mode, path)
        return file.read() if limit is None else file.read(limit)


def _refuse_others(mode: int, path: str | Path) -> None:
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFREG:
        raise NotPlain(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, no plain file", str(path))
