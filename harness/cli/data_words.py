"""Words of `python -m harness.data`, and the help on the datasets' own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from harness.api.vocabulary import SPLITS
from harness.cli.parsing import word
from harness.cli.run_words import WhichData
from harness.datasets import DATASETS, LABEL_OPTIONS, opener_of
from harness.datasets.disk.files import FileDataset
from harness.datasets.weak.scribbling import STYLES, WHOLE
from harness.errors import BadInput

NAMES = tuple(sorted(p.name.removesuffix(".safetensors") for p in (files("methods.parts.nets") / "weights").iterdir()))
"""The tiny backbones of the package."""
READING = ("check", "weak-labels", "import-cams", "import-tags")
"""Subcommands that read a dataset."""
WRITING = ("weak-labels", "import-cams", "import-tags", "make-backbones")


@dataclass
class DataCommandWords:
    """Words of the subcommands of `harness.data`."""

    data: WhichData = word(WhichData, "dataset", *READING)
    kind: str | None = word(
        None, "points, scribbles, clicks, clicks20, clicks50, clicks100 or blocks", "weak-labels", example="kind=points"
    )
    number: int | None = word(
        None, "how many clicks an image, for kind=clicks; default 20", "weak-labels", least=1, example="number=50"
    )
    seed: int = word(
        0, "other seeds, other labels (those made on the fly have seed 0) or other networks", "weak-labels",
        "make-backbones", least=0, example="seed=1",
    )  # fmt: skip
    split: str = word("train", "whose images", "weak-labels", choices=SPLITS, example="split=train")
    cams: str | None = word(
        None, "folder of .npy files of CLIP-ES, SIPE, IRN, SFC, MCTformer, ...", "import-cams",
        example="cams=output/cams",
    )  # fmt: skip
    tags: str | None = word(
        None, "cls_labels*.npy, JSON, or a folder of VOC XML", "import-tags", example="tags=cls_labels_onehot.npy"
    )
    out: str | None = word(
        None, "folder (import-tags: JSON file) that is written; make-backbones: default the package's own", *WRITING,
        example="out=labels",
    )  # fmt: skip
    normalise: bool = word(False, "cut maps at 0 and divide each by its maximum", "import-cams")
    again: bool = word(False, "convert files anew that an earlier call has converted", "import-cams")
    names: str = word(",".join(NAMES), "which, a list", "make-backbones", choices=NAMES, several=True)
    threads: int = word(1, "CPU threads", "make-backbones", least=1, example="threads=2")


def dataset_help() -> list[str]:
    """`data.masks` and every `data.<option>` of each dataset with their defaults, as the datasets declare them."""
    lines = ["data.masks and data.<option> by dataset, with their defaults:"]
    with tempfile.TemporaryDirectory() as empty:
        for name in DATASETS:
            try:
                lines.append(f"    {name:<12} {_own_words(name, empty)}")
            except BadInput as error:
                # A package that is broken does not keep the help from those who ask for it.
                lines.append(f"    {name:<12} {error.problems[0].found}")
    return [
        *lines,
        "    data.weak is a folder of sparse labels, data.tags a file or folder of image-level labels",
        "    data.pseudo is a folder of pseudo masks of the training images, for labels=pseudo",
        f"    data.scribble_length (default {WHOLE.length:g}): share of each scribble that is kept, 0 a point of it",
        f"    data.scribble_style (default {WHOLE.style}): of scribbles derived from masks, {' or '.join(STYLES)}",
    ]


def _own_words(name: str, empty: str) -> str:
    """The words of one dataset. What it looks for is asked of itself: in an empty folder it takes the default."""
    opener = opener_of(name)
    words = [f"data.{option}{_default(value)}" for option, value in opener.options.items()]
    found = opener.look({"root": empty}, {})
    if found is None:
        return ", ".join(words)
    masks = found.dataset.layout.mask_folder if isinstance(found.dataset, FileDataset) else ""
    shown = [f"data.masks{_default(masks)}"] * bool(masks) + words
    return ", ".join([*shown, *(f"data.{option}" for option in LABEL_OPTIONS)])


def _default(value: Any) -> str:
    if value in (None, ""):
        return ""
    return f" (default {','.join(value) if isinstance(value, tuple) else value})"
