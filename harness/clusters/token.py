"""The token that all nodes of a Ray cluster share: who has it runs code there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from harness.errors import BadInput, Problem

TOKEN = "~/.ray/auth_token"
"""Where Ray looks for it, on every node."""
MAKE = "`python -m harness.cluster token`"


def make_token(path: Path) -> str:
    """Makes the token where there is none, readable by its owner alone; says what was done.

    `ray get-auth-token --generate` writes a file that every user of the machine can read. Raises BadInput where it
    cannot be written.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            was = path.stat().st_mode & 0o777
            path.chmod(0o600)
            return f"{path} was there already" + (f", mode {was:o}; now it is for you alone" if was & 0o077 else "")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
    except OSError as error:
        raise BadInput(Problem("token", f"{path} cannot be made ({error.strerror})", "a home that is yours")) from error
    return f"{path}: a new token, for you alone; `ray up` copies it to every node"
