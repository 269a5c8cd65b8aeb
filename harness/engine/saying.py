"""What a run has to say of itself while it goes on: printed at once, and kept for a driver that is another process."""

from __future__ import annotations

_SAID: list[str] = []


def say(text: str) -> None:
    """Prints a line, and keeps it until `said` is called: what a worker of Ray prints reaches nobody."""
    print(text, flush=True)
    _SAID.append(text)


def said() -> tuple[str, ...]:
    """The lines of this process since the last call."""
    lines = tuple(_SAID)
    _SAID.clear()
    return lines
