"""Files: the one digest of values and of files, writes that are whole or not there, and locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.errors import BadInput, Problem


def digest_of(value: Any) -> str:
    """The first 20 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """The first 20 hex digits of a file's SHA-256."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()[:20]


def content_digest(path: Path) -> str:
    """Digest of a file, or of a folder's file names and contents."""
    if path.is_file():
        return file_digest(path)
    return digest_of({str(p.relative_to(path)): file_digest(p) for p in sorted(path.rglob("*")) if p.is_file()})


TMP_SUFFIX = ".tmp"
SYNC_THREADS = 16

_WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.ENOLCK: "the file system has no locks (an NFS server without its lock service?)",
}


def local_root(root: str | Path) -> Path:
    """The folder that a path or a `file://` address names; BadInput for any other address."""
    text = str(root)
    address = urlsplit(text)
    if "://" in text and address.scheme != "file":
        fix = "a local or mounted folder, for instance store=results"
        raise BadInput(Problem("store", f"{text} is not a folder", fix))
    folder = Path(unquote(address.path)) if address.scheme == "file" else Path(text).expanduser()
    if file := next((p for p in (folder, *folder.parents) if os.path.isfile(p)), None):
        raise BadInput(
            Problem("store", f"{file} is a file, no folder", "name a folder: it is made where it is not there")
        )
    return folder


def plain_words(error: OSError) -> str:
    """What went wrong on the disk, for a reader who does not know errno."""
    known = _WORDS.get(error.errno or 0)
    return known or f"{error.strerror or error}".lower()


_OUT = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space, or raise the quota",
    errno.EFBIG: "raise the limit (`ulimit -f`)",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable"),
}
_IN_RUST = re.compile(r"\(os error (\d+)\)")


def way_out(error: Exception) -> str:
    """What to do where a file could not be written: `free space and run the same command again, it goes on`."""
    found = _IN_RUST.search(str(error))
    code = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return f"{_OUT.get(code or 0, 'see to the disk')} and run the same command again, it goes on"


@contextmanager
def atomic(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A hidden path beside `path` to write a file or a folder to: `path` then holds all of it, or is as it was.

    When the block ends it is forced to the disk and renamed; on an error it is removed. `sync=False` is for what may be
    lost in a power cut. A folder takes the place of an older one. Missing parents are made. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The random part: processes of several machines that share a disk may have the same number.
    tmp = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}{TMP_SUFFIX}")
    try:
        yield tmp
        if sync:
            sync_tree(tmp)
        if tmp.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(tmp, path)
        if sync:
            _sync(path.parent)
    finally:
        # After the rename there is nothing to remove; half a checkpoint would keep a full disk full.
        if tmp.is_dir():
            shutil.rmtree(tmp, ignore_errors=True)
        else:
            tmp.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file `atomic`ally."""
    with atomic(path, sync=sync) as tmp:
        tmp.write_bytes(content)


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Write a value as JSON, `atomic`ally."""
    write_bytes(path, json.dumps(value, separators=(",", ":")).encode(), sync=sync)


def discard(path: Path) -> None:
    """Take a file of ours away; a folder that cannot be written any more has been told of by who wants to write."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sync_tree(path: Path) -> None:
    """Force a file, or a folder with everything in it, to the disk; what lies there already costs microseconds.

    Threads wait together: a journal takes many files in one commit, a tenth of the time of one after the other.
    """
    if not path.is_dir():
        return _sync(path)
    inside = list(path.rglob("*"))
    with ThreadPoolExecutor(SYNC_THREADS) as waiting:
        list(waiting.map(_sync, [*inside, path]))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lease:
    """A lock on a file that the system frees when its process dies: held by one, or shared by many.

    Opened for reading and writing: NFS emulates `flock` by byte-range locks, which want a descriptor that may write to
    hold a file alone, and one that may read to share it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path, *, shared: bool = False, wait: bool = False) -> Lease | None:
        """The lock on `path`, which is made where it is missing; None while another process holds it.

        With `wait` it is waited for. Raises OSError where the file cannot be opened or the file system cannot lock.
        """
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, how)
                # The holder before may have removed the file: a lock on one that is gone binds nobody.
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not wait:
                return None

    def close(self) -> None:
        """Give the lock back; harmless when that has happened."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
