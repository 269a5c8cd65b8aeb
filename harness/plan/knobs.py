"""Knob values: from command-line text, to JSON and back to a method's typed config."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from harness.api.registry import Chosen
from harness.api.spec import MethodConfig, MethodSpec, Preset
from harness.cli.parsing import split_list, switch
from harness.errors import BadInput, Problem, nearest


def typed_knobs(spec: MethodSpec, values: Mapping[str, Any]) -> MethodConfig:
    """A method's config from knob values.

    Raises BadInput for unknown knobs and values of another kind than the default's, else for broken rules, all at once.
    """
    known = spec.config.knobs()
    problems = [
        Problem(f"{spec.name}.{k}", "is no knob of this method", nearest(k, known)) for k in values if k not in known
    ]
    typed: dict[str, Any] = {}
    for name, value in values.items() if not problems else ():
        try:
            typed[name] = _typed(known[name].default, value)
        except ValueError:
            problems.append(_of_another_kind(spec, name, value))
    if problems:
        raise BadInput(problems)
    config = spec.config(**typed)
    broken = config.problems()
    if broken:
        raise BadInput(
            [Problem(f"{spec.name}.{p.where.removeprefix(spec.name + '.')}", p.found, p.fix) for p in broken]
        )
    return config


def preset_knobs(spec: MethodSpec, preset: Preset) -> dict[str, Any]:
    """Every knob of a method at its preset's value, as JSON has it."""
    values = {f.name: plain(f.default) for f in spec.config.knobs().values()}
    return values | {k: plain(v) for k, v in preset.knobs.items()}


def knob_from_text(spec: MethodSpec, name: str, raw: str) -> Any:
    """A knob's value from its command-line text, of the default's type. Raises BadInput naming knob and type."""
    known = spec.config.knobs()
    if name not in known:
        raise BadInput(Problem(f"{spec.name}.{name}", "is no knob of this method", nearest(name, known)))
    try:
        return plain(_from_text(known[name].default, raw))
    except ValueError as e:
        raise BadInput(_of_another_kind(spec, name, raw)) from e


def knob_problems(texts: Mapping[str, Mapping[str, str]], chosen: Iterable[Chosen]) -> list[Problem]:
    """What is wrong with knobs on the command line, before presets and data are known: names and types."""
    specs = {spec.name: spec for c in chosen for spec in (c.spec, c.base) if spec is not None}
    problems = []
    for method, knobs in texts.items():
        for name, raw in knobs.items() if method in specs else ():
            try:
                knob_from_text(specs[method], name, raw)
            except BadInput as e:
                problems.extend(e.problems)
    return problems


def plain(value: Any) -> Any:
    """The value as JSON has it: a list for a tuple."""
    return list(value) if isinstance(value, tuple) else value


def without_defaults(config: type[MethodConfig], values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Knob values without those of a kind (`added`, `silent`) that stand at their defaults, for keys and ids."""
    quiet = {name: plain(f.default) for name, f in config.knobs().items() if f.metadata.get(kind)}
    return {name: value for name, value in values.items() if name not in quiet or plain(value) != quiet[name]}


def _of_another_kind(spec: MethodSpec, name: str, value: Any) -> Problem:
    """A knob whose value is none of its default's kind."""
    field = spec.config.knobs()[name]
    default = plain(field.default)
    usual = ",".join(map(str, default)) if isinstance(default, list) else str(default)
    return Problem(
        f"{spec.name}.{name}", f"{value!r} is no {_kind(field.default)}", f"{field.metadata['doc']}; default {usual}"
    )


def _kind(default: Any) -> str:
    """What values beside a default are, in words."""
    if isinstance(default, tuple):
        return f"list of {_kind(_first(default))}s"
    for kind, text in ((bool, "switch (true or false)"), (int, "whole number"), (float, "finite number")):
        if isinstance(default, kind):
            return text
    return "word" if isinstance(default, str) else type(default).__name__


def _first(default: tuple[Any, ...]) -> Any:
    """What the items of a list are like; numbers where the default is empty."""
    return default[0] if default else 0.0


LARGEST = 2**63 - 1
"""Whole numbers are those that every file format and library below takes."""


def _typed(default: Any, value: Any) -> Any:
    """A value as the default's type has it. Raises ValueError for one of another kind, and for one without an end."""
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(value)
        return tuple(_typed(_first(default), item) for item in value)
    if isinstance(default, bool | str):
        right = isinstance(value, type(default))
    elif isinstance(default, int):
        right = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    elif isinstance(default, float):
        right = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        value = float(value) if right else value
    else:
        right = True
    if not right:
        raise ValueError(value)
    return value


def _from_text(default: Any, raw: str) -> Any:
    """A value from its text. Raises ValueError as `_typed` does."""
    if isinstance(default, tuple):
        return tuple(_from_text(_first(default), part) for part in split_list(raw))
    for kind, read in ((bool, switch), (int, int), (float, float)):
        if isinstance(default, kind):
            return _typed(default, read(raw))
    return raw
