"""What the masks of a dataset say together: absent classes, numbers that are no classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from harness.api.vocabulary import IGNORE
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.looking import Readable, Seen
from harness.datasets.io.images import some_of
from harness.datasets.io.palettes import judge_palettes
from harness.errors import Problem

SLIVER = 0.005
"""Share of an image; a label that covers less of every image that it is in is a sliver."""
SLIVERS = 1 / 3
"""Share of slivers among the labels from which on masks look resampled by interpolation."""
SLIVERS_FROM = 4
"""Fewer slivers are small objects."""
LONELY = 0.001
"""Share of the only image that shows a label, below which the label may be a slip."""


def judge_together(dataset: Readable, seen: Mapping[str, Seen]) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings on these pictures as a whole; what is wrong with one file is told by `look`."""
    errors, warnings = absent(dataset, seen)
    where = str(dataset.layout.root / dataset.layout.mask_folder)
    wrong, odd = judge_palettes([one.mask for one in seen.values() if one.mask is not None], dataset.class_names, where)
    return [*errors, *wrong], [*warnings, *odd, *_numbers(dataset, seen)]


def absent(dataset: Readable, seen: Mapping[str, Seen]) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings on named classes that no training image among these shows, and on masks of one label.

    None where a training picture is damaged: it may be the one that shows the class.
    """
    every = set(dataset.layout.lists.get("train", ()))
    train = every & set(seen)
    learned = labels_in(seen, train)
    if not train or any(seen[image_id].errors for image_id in train):
        return [], []
    if train == every and any(seen[image_id].mask for image_id in train) and (few := too_few(dataset, learned)):
        return few, []
    if not learned or numbered(dataset.class_names):
        return [], []
    scored = labels_in(seen, set(seen) - train)
    lacking = [c for c in range(int(dataset.has_background), len(dataset.class_names)) if c not in learned]
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for labels, into, why in (
        ([c for c in lacking if c in scored], errors if dataset.complete else warnings, "not learned, yet scored"),
        ([c for c in lacking if c not in scored], warnings, "left out of the mean"),
    ):
        if labels:
            names = some_of((f"{dataset.class_names[c]} ({c})" for c in labels), 8)
            where = str(dataset.layout.root / dataset.layout.mask_folder)
            fix = "check that no masks are missing and that labels count in the order of the class names"
            into.append(Problem(where, f"no training image shows {names}: {why}", fix))
    return errors, warnings


def too_few(dataset: Readable, labels: Collection[int]) -> list[Problem]:
    """An error where masks tell nothing apart: fewer than two of their labels are not 255."""
    if len(labels) > 1:
        return []
    where = str(dataset.layout.root / dataset.layout.mask_folder)
    held = f"{next(iter(labels))} is their only label" if labels else "there is no label in them"
    fix = "255 is no class: number the foreground 1, 2, ...; or choose another mask folder with data.masks=<folder>"
    return [Problem(where, f"nothing to tell apart in the masks: {held} but 255 (ignore)", fix)]


def labels_in(seen: Mapping[str, Seen], ids: Collection[str]) -> set[int]:
    """Label values, 255 apart, that occur in these masks."""
    found: set[int] = set()
    for image_id in ids:
        mask = seen[image_id].mask
        if mask is not None:
            found.update(mask.labels)
    return found - {IGNORE}


def numbered(names: tuple[str, ...]) -> bool:
    """Whether classes have no names but their numbers."""
    return names == tuple(map(str, range(len(names))))


def _numbers(dataset: Readable, seen: Mapping[str, Seen]) -> list[Problem]:
    """Questions on labels without names: gaps between them, slivers, and values that one image alone shows."""
    masks = [one.mask for one in seen.values() if one.mask is not None]
    labels = sorted(labels_in(seen, seen))
    if not numbered(dataset.class_names) or not labels:
        return []
    where = str(dataset.layout.root / dataset.layout.mask_folder)
    name = "name the classes in classes.txt, one a line, label 0 first: other numbers are then errors"
    problems = _gaps(where, labels, name)
    most, pixels, images = _extent(masks)
    slivers = [label for label in labels if most[label] < SLIVER]
    if len(slivers) >= SLIVERS_FROM and len(slivers) > SLIVERS * len(labels):
        found = f"{len(slivers)} of {len(labels)} labels cover less than {SLIVER:.1%} of every image that shows them "
        found += f"({some_of(map(str, slivers))}): were the masks resized by interpolation, or saved with smooth edges?"
        return [*problems, Problem(where, found, f"resize masks by nearest neighbour; or {name}")]
    lonely = [label for label in slivers if images[label] == 1 and most[label] < LONELY and len(masks) > 1]
    if lonely:
        told = some_of(f"{label} ({pixels[label]} pixels)" for label in lonely)
        found = f"labels that one image alone shows, with less than {LONELY:.1%} of it: {told}; are they meant?"
        problems.append(Problem(where, found, f"correct these pixels; or {name}"))
    return problems


def _gaps(where: str, labels: list[int], name: str) -> list[Problem]:
    """A question where numbers below the highest label occur nowhere."""
    gaps = _runs(sorted(set(range(labels[-1])) - set(labels)))
    if not gaps:
        return []
    told = some_of((f"{low}..{high}" if high > low else str(low) for low, high in gaps), 6)
    found = f"labels {told} occur in no mask, yet {labels[-1]} does: {labels[-1] + 1} classes are counted"
    if len(labels) == 2 and labels[0] == 0:
        found += f"; is {labels[1]} the foreground?"
        return [Problem(where, found, f"write 1 for it; or {name}")]
    low, high = gaps[-1]
    if high == labels[-1] - 1 and high - low + 1 >= max(2, len(labels) - 1):
        found += f"; is {labels[-1]} meant as 'ignore'?"
        return [Problem(where, found, f"write {IGNORE} for ignore; or {name}")]
    if gaps == [(0, 0)]:
        found += "; do the classes begin at 1?"
        return [Problem(where, found, f"write label - 1; with a background that is 0, {name}")]
    return [Problem(where, found, f"number the classes without gaps; or {name}")]


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers that follow each other."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _extent(masks: Iterable[MaskFacts]) -> tuple[dict[int, float], Counter[int], Counter[int]]:
    """Of each label: its largest share of an image, its pixels, the images that show it."""
    most: dict[int, float] = defaultdict(float)
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for mask in masks:
        size = mask.size[0] * mask.size[1]
        for label, count in zip(mask.labels, mask.pixels, strict=True):
            most[label] = max(most[label], count / size)
            pixels[label] += count
            images[label] += 1
    return most, pixels, images
