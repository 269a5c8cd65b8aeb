"""The word `ablation=`: names of sets of overrides, written `method.name`, or `name` for every method that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.api.spec import MethodSpec
from harness.cli.parsing import split_list
from harness.errors import Problem, nearest
from harness.plan.knobs import plain


def names_for(spec: MethodSpec, text: str | None) -> tuple[str, ...]:
    """The ablations of this method that the word's text names, in order; those of other methods are left out."""
    parts = [(method, name) for method, _, name in (p.rpartition(".") for p in split_list(text))]
    return tuple(name for method, name in parts if method in ("", spec.name) and name in spec.ablations)


def overrides(spec: MethodSpec, text: str | None) -> dict[str, Any]:
    """Knob values of all ablations that the text names for this method; later ones win."""
    values: Mapping[str, Any] = {k: v for name in names_for(spec, text) for k, v in spec.ablations[name].items()}
    return {k: plain(v) for k, v in values.items()}


def unknown_names(text: str | None, specs: Sequence[MethodSpec]) -> list[Problem]:
    """Names in the text that stand for nothing in any of the chosen methods."""
    problems = []
    for part in split_list(text):
        method, _, name = part.rpartition(".")
        asked = [s for s in specs if method in ("", s.name)]
        if method and not asked:
            names = [s.name for s in specs]
            problems.append(Problem("ablation", f"{part!r}: {method!r} is not chosen", nearest(method, names)))
        elif not any(name in s.ablations for s in asked):
            known = [f"{s.name}.{a}" for s in asked for a in s.ablations]
            fix = nearest(part if method else name, known) if known else f"no ablations in {_list(asked)}"
            problems.append(Problem("ablation", f"{part!r} is unknown", fix))
    return problems


def _list(specs: Sequence[MethodSpec]) -> str:
    return ", ".join(s.name for s in specs)
