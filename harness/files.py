"""Files and digests: the one digest of values and of files, and writes that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
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


TMP_SUFFIX = ".tmp"

_WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
}


def local_root(root: str | Path) -> Path:
    """The folder that a path or a `file://` address names; BadInput for any other address."""
    text = str(root)
    address = urlsplit(text)
    if address.scheme == "file":
        return Path(unquote(address.path))
    if "://" in text:
        fix = "a local or mounted folder, for instance store=results"
        raise BadInput(Problem("store", f"{text} is not a folder", fix))
    return Path(text).expanduser()


def plain_words(error: OSError) -> str:
    """What went wrong on the disk, for a reader who does not know errno."""
    known = _WORDS.get(error.errno or 0)
    return known or f"{error.strerror or error}".lower()


def unique_tag() -> str:
    return f"{os.getpid()}.{uuid.uuid4().hex[:8]}"


def write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
