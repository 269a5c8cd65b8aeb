"""Opening of files that others put there: what is no plain file, a pipe above all, would keep its reader for ever."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from harness.errors import BadInput, Problem

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
    with opened_plain(path) as file:
        return file.read() if limit is None else file.read(limit)


def opened_plain(path: str | Path) -> BufferedReader:
    """A plain file, opened for reading. Raises OSError, `NotPlain` for what is none."""
    # A pipe is opened at once with O_NONBLOCK, and left before anything is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_others(os.fstat(descriptor).st_mode, path)
    except NotPlain:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_others(mode: int, path: str | Path) -> None:
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFREG:
        raise NotPlain(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, no plain file", str(path))


Stamp = tuple[int, int, int]
"""By which a file is known to be as it was: times of its content and of its inode (ns), size (bytes)."""


def stat_of(path: str | Path) -> Stamp:
    """The stamp of a file. Raises BadInput where there is none.

    A program can set the time of a content back, as `cp -p`, `rsync` and archives do; that of the inode it cannot.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise BadInput(unopened(str(path), error)) from error
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size


def unopened(path: str, error: OSError) -> Problem:
    """What is wrong with a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return Problem(path, "there is no such file", "put the file there")
    if isinstance(error, NotPlain):
        return Problem(path, str(error.strerror), "put the file itself there")
    return Problem(path, f"cannot be opened ({error.strerror})", "allow reading it (chmod a+r)")
