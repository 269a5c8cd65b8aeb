"""Reading every file of many pictures, and the rules that their sizes and labels must keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from harness.api.classes import Choice
from harness.api.vocabulary import IGNORE
from harness.datasets.disk import facts
from harness.datasets.disk.facts import ImageFacts, MaskFacts
from harness.datasets.disk.layout import Layout
from harness.datasets.io.images import some_of
from harness.datasets.io.reading import read_many
from harness.errors import BadInput, Problem

KEEP_FACTS_FROM = 2000
"""Where this many pictures had to be read, what was found is kept on disk for later processes."""
_DROP_TAG = "exiftool -Orientation= -overwrite_original <file>"


@dataclass(frozen=True)
class Seen:
    """What one picture's files hold, and what is wrong with them."""

    image: ImageFacts | None = None
    mask: MaskFacts | None = None
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


@dataclass
class Looked:
    """What many pictures hold, by id, and every problem of theirs."""

    seen: dict[str, Seen] = field(default_factory=dict)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


class Readable(Protocol):
    """What looking needs of a dataset on disk."""

    name: str
    layout: Layout
    class_names: tuple[str, ...]
    has_background: bool
    complete: bool
    choice: Choice | None

    def image_part(self, image_id: str) -> tuple[Path, str]:
        """File of an image, and the part of it."""

    def mask_part(self, image_id: str) -> tuple[Path, str]:
        """File of a mask, and the part of it."""

    def image_facts(self, image_id: str) -> ImageFacts:
        """Facts of an image. Raises BadInput."""

    def mask_facts(self, image_id: str) -> MaskFacts:
        """Facts of a mask. Raises BadInput."""

    def judge_mask(self, image_id: str, mask: MaskFacts) -> tuple[list[Problem], list[Problem]]:
        """Errors and warnings on the labels of a mask."""


_good: ContextVar[dict[int, tuple[Readable, dict[str, Seen]]] | None] = ContextVar("good", default=None)
"""Pictures of datasets in which nothing was found wrong or odd."""


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Within the block the files of a picture in which nothing is wrong or odd are looked at once: a plan asks for all
    pictures half a dozen times. A run asks anew, when it starts."""
    before = _good.set({})
    try:
        yield
    finally:
        _good.reset(before)


def look(dataset: Readable, ids: Iterable[str], *, images: bool = True) -> Looked:
    """Facts of these pictures, read on all cores where they are not known; `images` = False reads masks alone.

    Pictures without an image file (or mask file) are judged by what they have.
    """
    chosen = list(dict.fromkeys(ids))
    recall(dataset)
    held = _good.get()
    good = {} if held is None else held.setdefault(id(dataset), (dataset, {}))[1]
    known = {}
    for image_id in chosen:
        if image_id in good:
            known[image_id] = good[image_id] if images else Seen(mask=good[image_id].mask)
        elif (recalled := _recalled(dataset, image_id, images)) is not None:
            known[image_id] = recalled
    unknown = [image_id for image_id in chosen if image_id not in known]
    what = f"reading {dataset.name}" if images else f"reading masks of {dataset.name}"
    results = read_many(partial(see, dataset, images=images), unknown, what=what)
    found = dict(zip(unknown, results, strict=True))
    looked = Looked()
    for image_id in chosen:
        seen = known[image_id] if image_id in known else found[image_id]
        looked.seen[image_id] = _chosen(dataset, seen)
        looked.errors += seen.errors
        looked.warnings += seen.warnings
        if images and not seen.errors and not seen.warnings:
            good[image_id] = seen
    for image_id, seen in found.items():
        _remember(dataset, image_id, seen)
    if len(unknown) >= KEEP_FACTS_FROM:
        facts.save(dataset.layout.root)
    return looked


def _chosen(dataset: Readable, seen: Seen) -> Seen:
    """What was seen once labels are those of `data.keep`; files are judged and remembered as they are."""
    if dataset.choice is None or seen.mask is None:
        return seen
    return replace(seen, mask=facts.chosen(seen.mask, dataset.choice))


def recall(dataset: Readable) -> None:
    """Take in, once, what earlier processes kept of a large dataset."""
    if len(dataset.layout.images) >= KEEP_FACTS_FROM:
        facts.load(dataset.layout.root)


def see(dataset: Readable, image_id: str, *, images: bool = True) -> Seen:
    """One picture's files, read whole and judged."""
    errors: list[Problem] = []
    image = mask = None
    if images and image_id in dataset.layout.images:
        try:
            image = dataset.image_facts(image_id)
        except BadInput as error:
            errors += error.problems
    if image_id in dataset.layout.masks:
        try:
            mask = dataset.mask_facts(image_id)
        except BadInput as error:
            errors += error.problems
    return _judged(dataset, image_id, image, mask, errors)


def _judged(
    dataset: Readable, image_id: str, image: ImageFacts | None, mask: MaskFacts | None, errors: list[Problem]
) -> Seen:
    warnings: list[Problem] = []
    if mask is not None:
        wrong, odd = dataset.judge_mask(image_id, mask)
        errors += wrong
        warnings += odd
    if image is not None:
        wrong, odd = _judge_sizes(dataset, image_id, image, mask)
        errors += wrong
        warnings += odd
    return Seen(image, mask, tuple(errors), tuple(warnings))


def illegal_labels(
    path: Path, mask: MaskFacts, names: tuple[str, ...], hint: str = ""
) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings on a mask whose labels should be 0..K-1 or 255. `hint` says what wrong ones may mean."""
    illegal = [label for label in mask.labels if label >= len(names) and label != IGNORE]
    if illegal:
        found = (
            f"label {some_of(map(str, illegal))}, but the {len(names)} classes ({some_of(names, 3)}) are "
            f"labelled 0..{len(names) - 1}"
        )
        fix = hint or "correct the mask (255 = ignore), or name all classes in the file of class names (data.classes)"
        return [Problem(str(path), found, fix)], []
    if mask.labels == (IGNORE,):
        return [], [
            Problem(
                str(path), "every pixel is 255 (ignore)", "label the image, or leave it: nothing is learned from it"
            )
        ]
    return [], []


def _judge_sizes(
    dataset: Readable, image_id: str, image: ImageFacts, mask: MaskFacts | None
) -> tuple[list[Problem], list[Problem]]:
    turned = image.orientation != 1
    if mask is not None and mask.size != image.size:
        found = f"mask of {mask.size[1]}x{mask.size[0]} pixels, image of {image.size[1]}x{image.size[0]}"
        fix = "make both the same size; a turned mask hints at a photo with an EXIF rotation"
        if turned and mask.size == image.size[::-1]:
            found += f", whose EXIF orientation {image.orientation} turns it"
            fix = "turn the stored pixels as the tag says and drop it: exiftran -ai <file>"
        return [Problem(str(dataset.mask_part(image_id)[0]), found, fix)], []
    if turned:
        found = f"EXIF orientation {image.orientation}: viewers and some loaders turn it, masks lie on stored pixels"
        return [], [Problem(str(dataset.image_part(image_id)[0]), found, f"drop the tag: {_DROP_TAG}")]
    return [], []


def _recalled(dataset: Readable, image_id: str, images: bool) -> Seen | None:
    """What is remembered of a picture whose files stay as they were; None where one of them has to be read."""
    image = mask = None
    if images and image_id in dataset.layout.images:
        image = facts.known(*dataset.image_part(image_id), ImageFacts)
        if image is None:
            return None
    if image_id in dataset.layout.masks:
        mask = facts.known(*dataset.mask_part(image_id), MaskFacts)
        if mask is None:
            return None
    return _judged(dataset, image_id, image, mask, [])


def _remember(dataset: Readable, image_id: str, seen: Seen) -> None:
    if seen.image is not None:
        facts.remember(*dataset.image_part(image_id), seen.image)
    if seen.mask is not None:
        facts.remember(*dataset.mask_part(image_id), seen.mask)
