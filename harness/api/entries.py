"""Where a name of a method or dataset leads: a module of the harness, or an entry point of another package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points


@dataclass(frozen=True)
class Entry:
    """Where a method or dataset is defined; its module is imported only when it is asked for."""

    name: str
    target: str
    """`module:object`; of a dataset also a module alone."""
    source: str
    """The folder or the package that it comes from, for messages."""


def entries_of(group: str) -> list[Entry]:
    """The entry points of a group, in order of name and target, whatever packages they are of."""
    return sorted(
        (
            Entry(p.name, p.value, f"entry point of package {p.dist.name if p.dist else '?'}")
            for p in entry_points(group=group)
        ),
        key=lambda entry: (entry.name, entry.target),
    )
