"""Knob values: from command-line text, to JSON and back to a method's typed config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.api.registry import Chosen
from harness.api.spec import MethodConfig, MethodSpec, Preset
from harness.cli.parsing import split_list, switch
from harness.errors import BadInput, Problem, nearest


def typed_knobs(spec: MethodSpec, values: Mapping[str, Any]) -> MethodConfig:
    """A method's config from knob values. Raises BadInput for unknown knobs and for broken rules, all at once."""
    known = spec.config.knobs()
    problems = [
        Problem(f"{spec.name}.{k}", "is no knob of this method", nearest(k, known)) for k in values if k not in known
    ]
    if problems:
        raise BadInput(problems)
    typed = {k: _typed(known[k].default, v) for k, v in values.items()}
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
    default = known[name].default
    try:
        return plain(_from_text(default, raw))
    except ValueError as e:
        doc = known[name].metadata.get("doc", "")
        raise BadInput(
            Problem(f"{spec.name}.{name}", f"{raw!r} is no {type(default).__name__}", f"{doc}; default {default}")
        ) from e


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


def _typed(default: Any, value: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _from_text(default: Any, raw: str) -> Any:
    if isinstance(default, bool):
        return switch(raw)
    if isinstance(default, int):
        return int(raw)
    if isinstance(default, float):
        value = float(raw)
        if value != value:
            raise ValueError(raw)
        return value
    if isinstance(default, tuple):
        kind = default[0] if default else 0.0
        return tuple(_from_text(kind, part) for part in split_list(raw))
    return raw
