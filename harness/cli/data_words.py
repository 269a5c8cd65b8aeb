"""Words of `python -m harness.data`: how each is read, its default, and the help on them and on the datasets' own."""

from __future__ import annotations

import importlib
import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.datasets import DATASETS, LABEL_OPTIONS
from harness.datasets.disk.files import FileDataset


@dataclass(frozen=True)
class Word:
    """One `key=value` word of a subcommand: how its text is read, its default and what it means."""

    read: Callable[[str], Any]
    default: Any
    help: str
    example: str


@dataclass(frozen=True)
class Command:
    """A subcommand; `run` gets the typed values of all its words and returns the exit code."""

    help: str
    words: Mapping[str, Word]
    run: Callable[[Mapping[str, Any]], int]
    options: bool = False
    """Whether it takes `data.<option>` words; `run` gets them as texts under `options`."""


def whole(low: int) -> Callable[[str], int]:
    """Reads whole numbers from `low` on."""

    def read(text: str) -> int:
        value = int(text)
        if value < low:
            raise ValueError(f"must be at least {low}")
        return value

    return read


def yes(text: str) -> bool:
    """Reads true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


DATA_WORDS: dict[str, Word] = {
    "data": Word(str, "shapes", ", ".join(DATASETS), "data=voc"),
    "data.root": Word(str, None, "where the dataset lies", "data.root=VOCdevkit"),
    "data.masks": Word(str, None, "which mask folder; its default by dataset stands below", "data.masks=gtFine"),
    "data.classes": Word(
        str,
        None,
        "class names, one a line, for folder (default classes_<masks>.txt, classes.txt, numbers of the masks)",
        "data.classes=classes.txt",
    ),
}
"""Which dataset, for every subcommand that reads one; with `options` it takes `data.<option>` too."""

LABEL_WORDS: dict[str, Word] = {
    "kind": Word(str, None, "points, scribbles, clicks, clicks20, clicks50, clicks100 or blocks", "kind=points"),
    "number": Word(whole(1), None, "how many clicks an image, for kind=clicks (default 20)", "number=50"),
    "seed": Word(whole(0), 0, "other seeds place other labels; those made on the fly have seed 0", "seed=1"),
    "split": Word(str, "train", "whose images", "split=train"),
    "cams": Word(str, None, "folder of .npy files of CLIP-ES, SIPE, IRN, SFC, MCTformer, ...", "cams=output/cams"),
    "tags": Word(str, None, "cls_labels*.npy, JSON, or a folder of VOC XML", "tags=cls_labels_onehot.npy"),
    "out": Word(str, None, "folder (import-tags: JSON file) that is written", "out=labels"),
    "normalise": Word(yes, False, "cut maps at 0 and divide each by its maximum", "normalise=true"),
    "again": Word(yes, False, "convert files anew that an earlier call has converted", "again=true"),
}
"""Words of the subcommands that write labels."""


def label_words(*names: str) -> dict[str, Word]:
    """Some of `LABEL_WORDS`, and which dataset."""
    return {**{name: LABEL_WORDS[name] for name in names}, **DATA_WORDS}


def usage(commands: Mapping[str, Command], command: str | None = None) -> str:
    """Help text on all subcommands, or on one of them."""
    lines = ["usage: python -m harness.data SUBCOMMAND [word=value ...]", ""]
    chosen = {name: entry for name, entry in commands.items() if command in (None, name)}
    for name, entry in chosen.items():
        lines.append(f"{name}: {entry.help}")
        for word, w in entry.words.items():
            lines.append(f"    {word:<12} {w.help}{_default(w.default)}")
        if entry.options:
            lines.append("    data.<option> per dataset, as in a sweep, below")
    if any(entry.options for entry in chosen.values()):
        lines += ["", *dataset_help()]
    return "\n".join(lines)


def dataset_help() -> list[str]:
    """`data.masks` and every `data.<option>` of each dataset with their defaults, as the datasets declare them."""
    lines = ["data.masks and data.<option> by dataset, with their defaults:"]
    with tempfile.TemporaryDirectory() as empty:
        for name in DATASETS:
            module = importlib.import_module(f"harness.datasets.{name}")
            words = [f"data.{option}{_default(value)}" for option, value in _options(module).items()]
            if hasattr(module, "survey"):
                # What a dataset looks for is asked of itself: in an empty folder it takes the default.
                found = module.survey(root=empty).dataset
                masks = found.layout.mask_folder if isinstance(found, FileDataset) else ""
                words = [f"data.masks{_default(masks)}"] * bool(masks) + words
                words += [f"data.{option}" for option in LABEL_OPTIONS]
            lines.append(f"    {name:<12} {', '.join(words)}")
    return [*lines, "    data.weak is a folder of sparse labels, data.tags a file or folder of image-level labels"]


def _options(module: Any) -> dict[str, Any]:
    """A dataset's own options: keywords of its `open`, with the defaults of its `Options` where it has them."""
    declared = getattr(module, "Options", None)
    own = inspect.signature(module.open).parameters.values()
    return {p.name: getattr(declared, p.name, p.default) for p in own if f"data.{p.name}" not in DATA_WORDS}


def _default(value: Any) -> str:
    if value in (None, ""):
        return ""
    return f" (default {','.join(value) if isinstance(value, tuple) else value})"
