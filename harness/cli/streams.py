"""What a command finds around it: output that is closed, full or not UTF-8, a current folder that is gone."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys

from harness.files import plain_words

PLAIN = {
    "─": "-",
    "━": "-",
    "–": "-",
    "−": "-",
    "·": "|",
    "†": "+",
    "×": "x",
    "±": "+-",
    "…": "...",
    "█": "#",
    "░": ".",
}
"""What tables and bars are drawn with, for terminals that cannot show it."""
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Faults that no code makes; any other is a bug, whose traceback is wanted."""


def prepare_output() -> None:
    """Make stdout and stderr fit to be printed to: closed ones lead nowhere, what they cannot show is spelled out."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    codecs.register_error("harness.plain", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files need not be UTF-8, and terminals neither: a report comes through all the same.
            stream.reconfigure(errors="harness.plain")


def drop_output() -> None:
    """Forget what stdout could not take: it would raise again when Python closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def outer_fault(error: OSError) -> str | None:
    """What is wrong around the command, in one line; None for an error that comes from elsewhere."""
    if isinstance(error, FileNotFoundError):
        return None if _has_folder() else "the current folder is gone: cd to one that exists"
    if error.errno not in _OF_THE_MACHINE:
        return None
    try:
        print(flush=True)
    except OSError:
        drop_output()
        return f"the output cannot be written: {plain_words(error)}"
    return f"{error.filename}: {plain_words(error)}" if error.filename else plain_words(error)


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Signs of tables in ASCII, anything else as its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end
