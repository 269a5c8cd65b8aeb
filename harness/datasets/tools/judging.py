"""What `check` says of the labels that lie beside a dataset: errors, warnings, and where each kind comes from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE
from harness.datasets.disk.files import FileDataset
from harness.datasets.disk.looking import Seen
from harness.datasets.disk.pseudo import PSEUDO, PseudoMasks
from harness.datasets.io.images import merged, some_of
from harness.datasets.weak import KINDS
from harness.datasets.weak.finding import kinds_below
from harness.errors import BadInput, Problem

CONTRADICTED = 0.05
"""Share of training images whose tags may differ from their masks: objects that are too small or hard to outline."""


@dataclass
class Judged:
    """Problems of label files, and the source of each kind's labels in words."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)


def judge_sparse(dataset: FileDataset) -> Judged:
    """The sparse labels of the training images, every file of them read."""
    judged = Judged()
    train = dataset.ids("train") if "train" in dataset.splits() else ()
    given = kinds_below(dataset.weak_root) if dataset.weak_root is not None else []
    for kind in dict.fromkeys((*KINDS, *given, *([PSEUDO] if dataset.pseudo is not None else []))):
        if dataset.weak_root is not None and kind not in (*given, PSEUDO):
            judged.sources[kind] = f"none in {dataset.weak_root}"
            continue
        judged.sources[kind] = "unusable files, see the errors"
        try:
            files = dataset.weak_files(kind)
            judged.sources[kind] = dataset.weak_source(kind)
        except BadInput as error:
            judged.errors += error.problems
            continue
        if files is None:
            continue
        here = sum(files.covers(image_id) for image_id in train)
        judged.sources[kind] += f", {here} of {len(train)} training images"
        absent = files.absent(train)
        # Some images without a file may be meant, where another kind is learned from; a folder of others is not.
        (judged.warnings if here else judged.errors).extend(absent)
        read = files.survey(train, dataset.size)
        judged.errors += merged(read.problems)
        judged.warnings += read.warnings
        if isinstance(files, PseudoMasks) and not read.problems:
            # Masks that are wrong are told by `look`.
            with suppress(BadInput):
                judged.errors += dataset.judge_pseudo(files, tuple(i for i in train if files.covers(i)))
        if read.blank and not read.problems:
            found = f"{len(read.blank)} training images have no labelled pixel: {some_of(read.blank)}"
            judged.warnings.append(Problem(files.where, found, "label them, or leave them: they teach by their tags"))
    return judged


def label_source(dataset: Dataset, kind: str) -> str:
    """Where labels of a kind come from, in words, for any dataset. Raises BadInput where they cannot be had."""
    if kind == "masks":
        return "the masks"
    if not isinstance(dataset, FileDataset):
        return "made with the pictures"
    if kind == "tags":
        return "data.tags" if dataset.given_tags else "derived from the masks"
    return dataset.weak_source(kind)


def told_sources(sources: Mapping[str, str]) -> list[str]:
    """Lines that say where each kind's labels come from; neighbours with the same source share one."""
    lines = []
    for source, kinds in groupby(sources, key=lambda kind: sources[kind]):
        lines.append(f"  {', '.join(kinds)}: {source}")
    return lines


def judge_tags(dataset: FileDataset, seen: Mapping[str, Seen]) -> list[Problem]:
    """Warnings where `data.tags` does not fit the masks of the training images, or says nothing of most."""
    offset = int(dataset.has_background)
    train = [i for i in dataset.layout.lists.get("train", ()) if i in dataset.given_tags]
    problems: list[Problem] = []
    empty = [i for i in train if not dataset.given_tags[i].any()]
    if 2 * len(empty) > len(train):
        found = f"no class at all for {len(empty)} of {len(train)} training images: {some_of(empty)}"
        problems.append(Problem("data.tags", found, "check that the file is of this dataset"))
    held = [(i, mask) for i in train if i in seen and (mask := seen[i].mask) is not None]
    differing = []
    for image_id, mask in held:
        shown = {label - offset for label in mask.labels if label >= offset and label != IGNORE}
        said = set(np.flatnonzero(dataset.given_tags[image_id]).tolist())
        if shown != said:
            names = [_names(dataset, labels) for labels in (said, shown)]
            differing.append(f"{image_id} (tags {names[0]}; mask {names[1]})")
    if len(differing) > CONTRADICTED * len(held):
        found = f"other classes than the masks in {len(differing)} of {len(held)} training images: "
        fix = "check that the file is of this dataset and has its classes in the order of the class names"
        problems.append(Problem("data.tags", found + some_of(differing, 2), fix))
    return problems


def _names(dataset: FileDataset, classes: set[int]) -> str:
    names = dataset.class_names[int(dataset.has_background) :]
    return " and ".join(names[c] for c in sorted(classes)) or "none"
