"""How charts look: one colour for each method on the whole page, thin lines, names as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from harness.errors import shown
from reports.format.html import Chart

PALETTE = (
    "#3b78c2", "#d9722e", "#3f9d63", "#b4559f", "#b18a1f", "#6a6fd1", "#c9484a", "#2c9aa8", "#8a7667", "#7c9a34",
)  # fmt: skip
"""Told apart on white and on black."""
DASHES = ("solid", "dot", "dash", "dashdot")
GREY = "#8c96a0"
DIGITS = 4
Trace = dict[str, Any]


def plain(text: object) -> str:
    """A name as plotly shows it literally: without control characters, its markup escaped."""
    return escape(shown(str(text)), quote=False)


def styles(names: Iterable[str]) -> dict[str, Trace]:
    """Colour and dash of the line of each name, in order of first appearance."""
    return {
        name: {"color": PALETTE[n % len(PALETTE)], "dash": DASHES[n // len(PALETTE) % len(DASHES)], "width": 1.8}
        for n, name in enumerate(dict.fromkeys(names))
    }


def chart(
    title: str,
    data: Sequence[Trace],
    *,
    x: str = "",
    y: str = "",
    layout: Mapping[str, Any] | None = None,
    **more: Any,
) -> Chart:
    """A chart of these traces with titles at its axes; `more` are fields of `Chart`."""
    base: dict[str, Any] = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    for name, value in (layout or {}).items():
        base[name] = {**base[name], **value} if name in base else value
    return Chart(title, as_json({"data": data, "layout": base}), **more)


def as_json(figure: Mapping[str, Any]) -> str:
    """A figure as JSON: numbers to as many digits as a screen shows, NaN as null."""
    return json.dumps(_short(figure), separators=(",", ":"), allow_nan=False)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) or math.isinf(value) else float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    return value
