"""Datasets by name. A module of this folder that defines `open` is a dataset, and so is an entry point of a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.api.dataset import Dataset
from harness.datasets.finding import DATASET_GROUP, ENTRIES, SHARED_WORDS, Opener, opener_of
from harness.datasets.weak.deriving import DerivingDataset
from harness.datasets.weak.scribbling import OPTIONS, parse_scribbling
from harness.errors import BadInput, Problem, nearest

DATASETS: tuple[str, ...] = tuple(sorted(ENTRIES))
"""Names that `data.name` can take."""
LABEL_OPTIONS = ("weak", "tags", "pseudo")
"""`data.<option>` words of every dataset on disk: folders of sparse labels and of pseudo masks, a file or folder of
tags."""

CLASS_OPTIONS = ("keep", "drop")
"""`data.<option>` words of every dataset on disk: which of its classes are scored and trained on."""


def open_dataset(
    name: str,
    *,
    root: str | None = None,
    masks: str | None = None,
    classes: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Dataset:
    """Open a dataset by name; `options` are its own `data.<option>` words, `LABEL_OPTIONS`, and those of scribbles.

    Raises BadInput for unknown names (with the nearest ones), unknown options, and all that the dataset finds; for one
    of another package that is broken with the file and line of what is wrong.
    """
    opener = opener_of(name)
    asked = split_options(opener, options or {})
    dataset = opener.open({"root": root, "masks": masks, "classes": classes}, asked.own)
    asked.choose(dataset)
    asked.draw(dataset)
    if asked.labels:
        dataset.use_labels(**asked.labels)
    return dataset


@dataclass(frozen=True)
class Asked:
    """`data.<option>` words by what they are for: labels, scribbles, classes, the dataset itself."""

    labels: dict[str, str]
    scribbling: dict[str, str]
    classes: dict[str, str]
    own: dict[str, str]

    def choose(self, dataset: Dataset) -> None:
        """Keep the classes that were asked for. Raises BadInput for unknown ones, and where there is no choice."""
        if self.classes:
            dataset.use_classes(**self.classes)

    def draw(self, dataset: Dataset) -> None:
        """Have scribbles derived as asked for. Raises BadInput for bad values, and where none are derived."""
        if not self.scribbling:
            return
        how = parse_scribbling(self.scribbling)
        if not isinstance(dataset, DerivingDataset):
            words = [f"data.{option}" for option in self.scribbling]
            raise BadInput([Problem(word, f"{dataset.name} draws no scribbles", "leave it out") for word in words])
        dataset.use_scribbling(how)


def split_options(opener: Opener, options: Mapping[str, str]) -> Asked:
    """Options by what they are for. Raises BadInput for those that the dataset does not know."""
    name, known = opener.entry.name, opener.options
    labels = {option: text for option, text in options.items() if option in LABEL_OPTIONS}
    scribbling = {option: text for option, text in options.items() if option in OPTIONS}
    classes = {option: text for option, text in options.items() if option in CLASS_OPTIONS}
    shared = (*LABEL_OPTIONS, *CLASS_OPTIONS, *OPTIONS)
    own = {option: text for option, text in options.items() if option not in shared}
    unknown = [option for option in own if option not in known]
    if unknown:
        near = [*SHARED_WORDS, *known, *shared]
        raise BadInput([Problem(f"data.{o}", f"{name} has no such option", nearest(o, near)) for o in unknown])
    return Asked(labels, scribbling, classes, own)


__all__ = ["DATASETS", "DATASET_GROUP", "LABEL_OPTIONS", "open_dataset", "opener_of", "split_options"]
