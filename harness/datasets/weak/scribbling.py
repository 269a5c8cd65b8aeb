"""How scribbles are drawn: the share of each stroke that is kept, and the style of those derived from masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import BadInput, Problem, nearest

STYLES = ("skeleton", "curve")
OPTIONS = ("scribble_length", "scribble_style")
"""`data.<option>` words of every dataset with scribbles."""


@dataclass(frozen=True)
class Scribbling:
    """`length`: share of each stroke, its middle (sparse_baselines.md 5.2); 0 leaves a point of it. `style`: derived
    strokes follow the middle line of a piece (skeleton), or a smooth curve through it (curve)."""

    length: float = 1.0
    style: str = "skeleton"

    @property
    def text(self) -> str:
        """What differs from whole strokes along middle lines, for fingerprints and tables; empty where nothing does."""
        parts = [f"length {self.length:g}"] * (self.length != 1.0) + [f"style {self.style}"] * (self.style != STYLES[0])
        return " ".join(parts)


WHOLE = Scribbling()
"""As the field has them."""


def parse_scribbling(options: Mapping[str, str]) -> Scribbling:
    """From the texts of `OPTIONS`. Raises BadInput with every bad value."""
    problems: list[Problem] = []
    length = 1.0
    text = options.get("scribble_length", "1")
    try:
        length = float(text)
    except ValueError:
        length = -1.0
    if not 0.0 <= length <= 1.0:
        fix = "a share in [0,1], for instance data.scribble_length=0.5"
        problems.append(Problem("data.scribble_length", f"{text!r} is no share of a stroke", fix))
    style = options.get("scribble_style", STYLES[0])
    if style not in STYLES:
        problems.append(Problem("data.scribble_style", f"{style!r} is unknown", nearest(style, STYLES)))
    if problems:
        raise BadInput(problems)
    return Scribbling(length, style)
