"""Names of published weights translated into ours, every disagreement named at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from harness.errors import BadInput, Problem

SHOWN = 12
"""Names listed in one problem; further ones are counted."""


@dataclass(frozen=True)
class KeyMap:
    """Regex rules from a published state dict's names to those of our `state_dict()`.

    A rule `(pattern, replacement)` is a full match (`re.fullmatch`) whose replacement may name groups (`\\1`); the
    first that matches counts. A name that no rule matches keeps its name.
    """

    rules: tuple[tuple[str, str], ...]
    ignore: tuple[str, ...] = ()
    """Patterns, full matches after stripping, of published tensors that we have no use for."""
    strip: tuple[str, ...] = ("module.",)
    """Prefixes taken off, in this order, before rules are tried."""

    def name(self, published: str) -> str | None:
        """Our name of a published tensor; None for one that is ignored."""
        for prefix in self.strip:
            published = published.removeprefix(prefix)
        if any(re.fullmatch(pattern, published) for pattern in self.ignore):
            return None
        for pattern, replacement in self.rules:
            if found := re.fullmatch(pattern, published):
                return found.expand(replacement)
        return published

    def convert(self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published tensors under our names, exactly those of `expected` and in its order.

        Raises BadInput naming every missing, unknown, twice-given and wrong-shaped tensor at once.
        """
        found: dict[str, Tensor] = {}
        source: dict[str, str] = {}
        unknown, twice, shapes = [], [], []
        for published, tensor in state.items():
            ours = self.name(published)
            if ours is None:
                continue
            if ours not in expected:
                unknown.append(published if ours == published else f"{published} -> {ours}")
            elif ours in found:
                twice.append(f"{published} and {source[ours]} -> {ours}")
            elif tensor.shape != expected[ours].shape:
                have, want = tuple(tensor.shape), tuple(expected[ours].shape)
                shapes.append(f"{published} -> {ours} is {have}, not {want}")
                found[ours], source[ours] = tensor, published
            else:
                found[ours], source[ours] = tensor, published
        missing = [name for name in expected if name not in found]
        problems = [
            Problem("weights", f"{len(names)} {what}: {_some(names)}", fix)
            for what, names, fix in (
                ("tensors are missing", missing, "is this the file of this method, with decoder and heads?"),
                ("tensors are unknown", unknown, "is this the file of this method and variant?"),
                ("names stand for the same tensor", twice, "the method's key map has rules that overlap"),
                (
                    "shapes differ",
                    shapes,
                    "choose backbone, crop, decoder and data (its number of classes) as the file was trained",
                ),
            )
            if names
        ]
        if problems:
            raise BadInput(problems)
        return {name: found[name] for name in expected}


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
