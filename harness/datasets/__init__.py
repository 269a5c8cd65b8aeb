"""Datasets by name. A module of this folder that defines `open` is a dataset; nothing else lists them."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path

from harness.api.dataset import Dataset
from harness.datasets.weak.deriving import DerivingDataset
from harness.datasets.weak.scribbling import OPTIONS, parse_scribbling
from harness.errors import BadInput, Problem, nearest


def _defines_open(source: Path) -> bool:
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "open":
            return True
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == "open" for a in node.names):
            return True
    return False


def _found() -> tuple[str, ...]:
    here = Path(__file__).parent
    modules = {path.stem: path for path in here.glob("*.py") if path.stem != "__init__"}
    modules |= {path.parent.name: path for path in here.glob("*/__init__.py")}
    return tuple(sorted(name for name, path in modules.items() if _defines_open(path)))


DATASETS: tuple[str, ...] = _found()
"""Names that `data.name` can take."""


LABEL_OPTIONS = ("weak", "tags")
"""`data.<option>` words of every dataset on disk: a folder of sparse labels, a file or folder of tags."""


def open_dataset(
    name: str,
    *,
    root: str | None = None,
    masks: str | None = None,
    classes: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Dataset:
    """Open a dataset by name; `options` are its own `data.<option>` words, `LABEL_OPTIONS`, and those of scribbles.

    Raises BadInput for unknown names (with the nearest ones), unknown options, and all that the dataset finds.
    """
    if name not in DATASETS:
        raise BadInput(Problem("data.name", f"no dataset {name!r}", nearest(name, DATASETS)))
    opener = importlib.import_module(f"harness.datasets.{name}").open
    labels = {option: text for option, text in (options or {}).items() if option in LABEL_OPTIONS}
    scribbling = {option: text for option, text in (options or {}).items() if option in OPTIONS}
    options = {k: text for k, text in (options or {}).items() if k not in (*LABEL_OPTIONS, *OPTIONS)}
    own = [word for word in inspect.signature(opener).parameters if word not in ("root", "masks", "classes")]
    unknown = [option for option in options if option not in own]
    if unknown:
        known = {
            option: nearest(option, [*own, *LABEL_OPTIONS, *OPTIONS]) if own else f"{name} has no options"
            for option in unknown
        }
        raise BadInput([Problem(f"data.{option}", f"{name} has no such option", known[option]) for option in unknown])
    dataset: Dataset = opener(root=root, masks=masks, classes=classes, **options)
    if scribbling:
        if not isinstance(dataset, DerivingDataset):
            raise BadInput([Problem(f"data.{o}", f"{name} draws no scribbles", "leave it out") for o in scribbling])
        dataset.use_scribbling(parse_scribbling(scribbling))
    if labels:
        dataset.use_labels(**labels)
    return dataset
