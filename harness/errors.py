"""Errors that a user reads, and the exit codes that go with them (design: 0 done, 1 a run failed, 2 bad input)."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141
"""Whoever read the output has gone (128 + SIGPIPE, as a shell has it)."""


def shown(text: str) -> str:
    """A text that a terminal prints and does not obey: escapes and other control characters are spelled out.

    Names of files, classes and images are whatever somebody chose; line ends and tabs stay.
    """
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", text)


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, colours or order of writing."""


def first_line(message: str | None) -> str:
    """What a stored error says in one line: the last line of a traceback, else the first of a message."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input: the word or file, what was found there, and how to fix it."""

    where: str
    found: str
    fix: str

    def __str__(self) -> str:
        return shown(without_secrets(f"{self.where}: {self.found}\n    fix: {self.fix}"))


class HarnessError(Exception):
    """Base of every error that the harness raises on purpose."""


class BadInput(HarnessError):
    """Everything that is wrong with words, data or machine, answered at once and before any work starts."""

    def __init__(self, problems: Sequence[Problem] | Problem):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class BrokenPlugin(BadInput):
    """A method or dataset whose own code cannot be used as it is: who asks for all is told, and gets the rest."""


class NonFiniteLoss(HarnessError):
    """A loss term became NaN or infinite; names step, term and the saved batch."""


class StoreError(HarnessError):
    """The store cannot be read or written; what is already in it is untouched."""


class HarnessWarning(UserWarning):
    """Base of every warning of the harness; a command prints it as one line."""


def nearest(word: str, known: Iterable[str], n: int = 3) -> str:
    """Text that names the known words nearest to `word`, or all of them when none is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n, cutoff=0.5)
    if close:
        return "did you mean " + ", ".join(close) + "?"
    return "known: " + ", ".join(names)


HIDDEN = "***"
_LOGIN = re.compile(r"(?<=://)(?=[^/\s])[^\s]*@")
_SECRET = re.compile(r"([?&;][^\s=&;]*(?:pass|pwd|token|secret|key|signature)[^\s=&;]*=)[^\s&;#]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text with the logins and keys of the addresses in it hidden: fit to be printed, logged or stored.

    `http://user:word@host/x?token=1` -> `http://***@host/x?token=***`. A password may hold any character but a space:
    all up to the last `@` goes.
    """
    return _SECRET.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))


def command(module: str, *words: str, **values: object) -> str:
    """A command as a shell takes it, to be printed: `python -m harness.store gc 'store=my runs'`.

    Words that are None are left out; secrets in addresses are hidden.
    """
    pairs = [without_secrets(f"{name}={value}") for name, value in values.items() if value is not None]
    return shlex.join(["python", "-m", module, *words, *pairs])
