"""Contracts that hold: a class that misses a member is refused when it is built, by name and place."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Any

from harness.errors import BrokenPlugin, Problem


class Contract(ABCMeta):
    """Metaclass of what others write against `harness.api`: abstract members are asked for when an instance is made."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An instance. Raises BrokenPlugin with file and line of a class that lacks abstract members."""
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise BrokenPlugin(
                Problem(written_at(cls), f"{cls.__name__} has no {' and no '.join(missing)}", _fix(cls, missing))
            )
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of `__init__`, which `__call__` above would hide from whoever asks."""
        parameters = list(inspect.signature(cls.__init__).parameters.values())  # type: ignore[misc]
        return inspect.Signature(parameters[1:])


def written_at(cls: type) -> str:
    """`file:line` of a class; its module's name where there is no source."""
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"


def _fix(cls: type, missing: list[str]) -> str:
    """What to write, with the signature that the contract gives it."""
    lines = []
    for name in missing:
        member = getattr(cls, name)
        plain = member.fget if isinstance(member, property) else member
        signature = str(inspect.signature(plain)) if callable(plain) else ""
        lines.append(f"def {name}{signature}: {inspect.getdoc(plain) or ''}".split("\n")[0])
    return "write " + "; ".join(lines)
