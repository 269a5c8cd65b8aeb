"""What tells rows apart that look the same: the words and knobs in which they differ, else the end of a study's id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reports.rows.row import Row

LOOK = (
    "method", "variant", "dataset", "supervision", "backbone", "decoder", "tier", "protocol", "trials",
    "iterations", "inference", "ablation", "split",
)  # fmt: skip
"""What a reader sees of a row besides its scores."""
WORDS = ("precision", "crop", "batch", "group", "fidelity")
"""Words of a run that a reader does not see."""
MOST = 2
"""Words and knobs in a name; rows that differ in more are told apart by their studies."""


def told_apart(rows: Sequence[Row], config_of: Callable[[Row], Mapping[str, Any]]) -> list[Row]:
    """The rows, those that look the same with an `extra`. `config_of`: the stored config of a row's first run."""
    looks: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(rows):
        looks.setdefault(tuple(getattr(row, name) for name in LOOK), []).append(i)
    told = list(rows)
    for places in looks.values():
        if len(places) < 2:
            continue
        same = [rows[i] for i in places]
        texts = _by_config([config_of(row) for row in same], pinned=same[0].trials == 1)
        if len(set(texts)) < len(same):
            texts = [row.study.rpartition("-")[2][:8] for row in same]
        if len(set(texts)) < len(same):
            texts = [hashlib.sha256(" ".join(row.keys).encode()).hexdigest()[:8] for row in same]
        for i, text in zip(places, texts, strict=True):
            told[i] = replace(told[i], extra=text)
    return told


def _by_config(configs: Sequence[Mapping[str, Any]], pinned: bool) -> list[str]:
    """For each config what the others have otherwise; empty texts where that is nothing, or too much for a name.

    Where knobs are `pinned`, not searched, they count. One that not all configs name is of an older version: left out.
    """
    values = [{name: config[name] for name in WORDS if name in config} for config in configs]
    if pinned:
        for value, config in zip(values, configs, strict=True):
            base = str(config.get("method")).partition("+")[0]
            value |= {f"{base}.{name}": knob for name, knob in _knobs(config, "base_knobs").items()}
            value |= _knobs(config, "knobs")
    shared = [name for name in values[0] if all(name in value for value in values)]
    apart = [name for name in shared if any(value[name] != values[0][name] for value in values)]
    if len(apart) > MOST:
        return [""] * len(configs)
    return [", ".join(f"{name} {_shown(value[name])}" for name in apart) for value in values]


def _knobs(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Knobs of a stored config; none where it has something else in their place."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
