"""Values read from a file, held against the types that a dataclass gives its fields."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.plan.knobs import LARGEST


def misfits(schema: type, values: Mapping[str, Any]) -> list[str]:
    """`batch is 'x', no int` for each value, by field, that is not of its type; NaN and infinity are no floats.

    A whole number goes as float, a list as tuple. Names that are no fields are left alone.
    """
    hints = _hints(schema)
    return [
        f"{name} is {value!r}, no {_named(hints[name])}"
        for name, value in values.items()
        if name in hints and not _fits(value, hints[name])
    ]


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    kind, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, parts[0]) for item in value)
    if kind is not None and issubclass(kind, Mapping):
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        # Whole numbers without end have no float.
        return math.isfinite(value) if isinstance(value, float) else isinstance(value, int) and abs(value) <= LARGEST
    return isinstance(value, hint)
