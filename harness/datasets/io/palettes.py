"""What the colours of index PNGs say of their numbers: a palette a file, a palette in another order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from harness.api.vocabulary import IGNORE
from harness.datasets.io.colours import COLOURS
from harness.datasets.io.images import some_of
from harness.errors import Problem

Colours = tuple[tuple[int, int, int], ...]
NO_COLOUR = (-1, -1, -1)
"""Of a label that the palette is too short for."""


class Coloured(Protocol):
    """The labels that occur in a file, and the palette's colour of each; () for grey files."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Label values, 255 included."""

    @property
    def colours(self) -> Colours:
        """As many, or none."""


@dataclass(frozen=True)
class Palette:
    """The labels of a file and their colours, without its pixels."""

    labels: tuple[int, ...]
    colours: Colours


def colours_of(labels: Iterable[int], palette: bytes) -> Colours:
    """The colours that a palette, three bytes a label, gives these labels; () for none."""
    if not palette:
        return ()
    found = (tuple(palette[3 * label : 3 * label + 3]) for label in labels)
    return tuple((c[0], c[1], c[2]) if len(c) == 3 else NO_COLOUR for c in found)


def judge_palettes(
    masks: Collection[Coloured], names: tuple[str, ...], where: str
) -> tuple[list[Problem], list[Problem]]:
    """An error where each file has numbers of its own; a warning where labels have two colours for another reason.

    Signs of the former: one colour stands for several labels, a label has three colours, or a label with two has VOC's
    colour of another one. Grey masks, ramps and palettes of one colour are left out.
    """
    colours: dict[int, Counter[tuple[int, int, int]]] = defaultdict(Counter)
    labels: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    files = 0
    for mask in masks:
        told = palette_of(mask)
        files += bool(told)
        for label, colour in told.items():
            colours[label][colour] += 1
            labels[colour].add(label)
    several = [label for label in sorted(colours) if len(colours[label]) > 1]
    if not several:
        return [], []
    told_first = some_of((f"label {label} has {len(colours[label])} colours" for label in several), 3)
    found = f"{told_first} over {files} files"
    shared = max((c for c, of in labels.items() if len(of) > 1), key=lambda c: (len(labels[c]), c), default=None)
    if shared is not None:
        found += f", and #{bytes(shared).hex()} is label {' and '.join(map(str, sorted(labels[shared])[:3]))}"
    voc = dict(enumerate(COLOURS))
    astray = any(misplaced(mask, voc, names) for mask in masks)
    if shared is not None or astray or any(len(colours[label]) > 2 for label in several):
        found += ": each file has a palette of its own, so that its numbers are not those of the others"
        fix = "save all masks with one palette: the number of a pixel is its class, whatever its colour"
        return [Problem(where, found, fix)], []
    fix = "check that labels mean the same in all files; one palette for all says so"
    return [], [Problem(where, f"{found}: are their numbers those of the same classes?", fix)]


def palette_of(mask: Coloured) -> dict[int, tuple[int, int, int]]:
    """The colour of each label of a mask, 255 left out; {} for grey masks, ramps of grey and palettes of one colour."""
    told = dict(zip(mask.labels, mask.colours, strict=True)) if mask.colours else {}
    told.pop(IGNORE, None)
    told = {label: colour for label, colour in told.items() if colour != NO_COLOUR}
    ramp = all(colour == (label, label, label) for label, colour in told.items())
    return {} if ramp or (len(told) > 1 and len(set(told.values())) == 1) else told


def misplaced(mask: Coloured, known: Mapping[int, tuple[int, int, int]], names: tuple[str, ...]) -> str | None:
    """That a mask's palette gives labels the colours that `known` has for others, in words; None where it does not.

    All of its colours must be known and different: anything else is another palette, which says nothing.
    """
    told = palette_of(mask)
    owner = {colour: label for label, colour in known.items()}
    other = {label: owner[c] for label, c in told.items() if label in known and owner.get(c, label) != label}
    if not other or not set(told.values()) <= set(owner) or len(set(told.values())) < len(told):
        return None
    named = {label: f"{of} ({names[of]})" if of < len(names) else str(of) for label, of in other.items()}
    return "wrong palette: label " + some_of(f"{label} has the colour of {text}" for label, text in named.items())
