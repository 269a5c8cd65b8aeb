"""Datasets by name: modules of `harness/datasets` that define `open`, and entry points of other packages."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.api.blame import blamed_on
from harness.api.contract import written_at
from harness.api.dataset import Dataset
from harness.api.entries import Entry, entries_of
from harness.errors import BadInput, Problem, nearest

DATASET_GROUP = "wsss_harness.datasets"
SHARED_WORDS = ("root", "masks", "classes")
"""Keywords of an opener that have words of their own; the others are its `data.<option>` words."""
MEMBERS = {
    "name": "'mydata'",
    "family": "'voc'",
    "class_names": "('background', 'cat', 'dog')",
    "has_background": "True",
}
"""What an instance must have beside its methods, with an example."""


@dataclass(frozen=True)
class Opener:
    """How a dataset is opened: a call with keywords, and what it says where something is wrong, where it has that."""

    entry: Entry
    """Its target is a module that defines `open` (and maybe `survey`), or `module:object` for an opener or a class."""
    call: Callable[..., Any]
    survey: Callable[..., Any] | None
    declared: Any = None
    """A class whose attributes are the defaults of the options, where the module has one."""

    @property
    def options(self) -> dict[str, Any]:
        """Its own `data.<option>` words, with their defaults."""
        return {n: getattr(self.declared, n, v) for n, v in keywords(self.call).items() if n not in SHARED_WORDS}

    def open(self, words: Mapping[str, str | None], options: Mapping[str, str]) -> Dataset:
        """The dataset. Raises BadInput for words that it does not take, for all that it finds, and for what is none."""
        made = self._made(self.call, words, options)
        problems = contract_problems(made, self.entry.source)
        if problems:
            raise BadInput(problems)
        dataset: Dataset = made
        return dataset

    def look(self, words: Mapping[str, str | None], options: Mapping[str, str]) -> Any:
        """What its `survey` finds; None where it has none. Raises BadInput as `open`."""
        return None if self.survey is None else self._made(self.survey, words, options)

    def _made(self, call: Callable[..., Any], words: Mapping[str, str | None], options: Mapping[str, str]) -> Any:
        known = keywords(call)
        idle = [word for word, text in words.items() if text is not None and word not in known]
        if idle:
            name = self.entry.name
            raise BadInput([Problem(f"data.{word}", f"{name} takes none", f"leave data.{word} out") for word in idle])
        with blamed_on("dataset", self.entry, "cannot be opened"):
            return call(**{word: text for word, text in words.items() if word in known}, **options)


def keywords(call: Callable[..., Any]) -> dict[str, Any]:
    """Keywords that a call takes, with their defaults (None where there is none)."""
    plain = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    # The metaclass of datasets takes anything and hands it on to the class.
    made: Any = call
    every = list(inspect.signature(made.__init__ if isinstance(call, type) else call).parameters.values())
    held = [p for p in (every[1:] if isinstance(call, type) else every) if p.kind not in plain]
    return {p.name: None if p.default is inspect.Parameter.empty else p.default for p in held}


def found() -> tuple[dict[str, Entry], list[Problem]]:
    """Entries by name, and a problem for every name that two packages, or a package and the harness, have."""
    here = Path(__file__).parent
    modules = {path.stem: path for path in here.glob("*.py") if path.stem != "__init__"}
    modules |= {path.parent.name: path for path in here.glob("*/__init__.py")}
    entries = {
        name.replace("_", "-"): Entry(name.replace("_", "-"), f"harness.datasets.{name}", str(path))
        for name, path in sorted(modules.items())
        if _defines_open(path)
    }
    problems = []
    for new in entries_of(DATASET_GROUP):
        old = entries.setdefault(new.name, new)
        if old.target != new.target:
            twice = f"{old.target} ({old.source}) and {new.target} ({new.source})"
            fix = "rename one of them, or uninstall its package"
            text = f"is registered twice: {twice}; the first is taken"
            problems.append(Problem(f"dataset {new.name!r}", text, fix))
    return entries, problems


def opener_of(name: str) -> Opener:
    """How a dataset of this name is opened. Raises BadInput for unknown names, and for one that cannot be imported."""
    if name not in ENTRIES:
        raise BadInput(Problem("data.name", f"no dataset {name!r}", nearest(name, ENTRIES)))
    entry = ENTRIES[name]
    twice = [problem for problem in CLASHES if problem.where == f"dataset {name!r}"]
    if twice:
        raise BadInput(twice)
    module, _, attribute = entry.target.partition(":")
    with blamed_on("dataset", entry, "cannot be imported"):
        target: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            target = getattr(target, part)
    if isinstance(target, ModuleType):
        survey, declared = getattr(target, "survey", None), getattr(target, "Options", None)
        target = getattr(target, "open", None)
    else:
        survey, declared = None, None
    if not callable(target):
        text = f"{entry.target} ({entry.source}) is no opener: a function or class that gives a Dataset, or a module "
        raise BadInput(Problem(f"dataset {name!r}", f"{text}that defines `open`", "docs/datasets.md shows one"))
    return Opener(entry, target, survey, declared)


def contract_problems(made: Any, source: str) -> list[Problem]:
    """What an opened dataset lacks that everything else relies on, by file and line of its class."""
    if not isinstance(made, Dataset):
        text = f"gives a {type(made).__name__}, a harness.api.dataset.Dataset is expected"
        return [Problem(source, text, "return an instance of a class that derives from it: docs/datasets.md")]
    where, kind = written_at(type(made)), type(made).__name__
    missing = [name for name in MEMBERS if not hasattr(made, name)]
    problems = [Problem(where, f"{kind} has no {n}", f"set it, for instance {n} = {MEMBERS[n]}") for n in missing]
    names = getattr(made, "class_names", ())
    if "class_names" not in missing and (
        not isinstance(names, tuple)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
        or not 1 + int(bool(getattr(made, "has_background", False))) <= len(names) <= 255
    ):
        fix = "a tuple of 1 to 255 different names, the background first where there is one"
        problems.append(Problem(where, f"class_names of {kind} are {str(names)[:80]}", fix))
    return problems


def _defines_open(source: Path) -> bool:
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "open":
            return True
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == "open" for a in node.names):
            return True
    return False


ENTRIES, CLASHES = found()
