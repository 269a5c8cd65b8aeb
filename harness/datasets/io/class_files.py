"""Files of class names: one a line, in the order of the labels."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from harness.api.vocabulary import IGNORE
from harness.datasets.io.images import some_of
from harness.datasets.io.listing import read_lines
from harness.errors import Problem

_FIX = "one name per line, label 0 first"
_NUMBERED = re.compile(r"(\d+)\s*[\s:,;=.)-]\s*\S")


def class_names(base: Path, mask_folder: str, classes: str | None, problems: list[Problem]) -> tuple[str, ...]:
    """Names of the label values from `classes`, or found in `base` (design section 3); () where no file names them."""
    if classes is not None:
        path = Path(classes).expanduser()
        if not path.is_file():
            fix = f"a text file with {_FIX.replace('name', 'class name')}"
            problems.append(Problem("data.classes", f"{classes}: there is no such file", fix))
            return ()
        folder = path.parent
    else:
        folder = base
        existing = [p for p in (base / f"classes_{mask_folder}.txt", base / "classes.txt") if p.exists()]
        if not existing:
            return ()
        path = existing[0]
    lines = read_lines(path, folder, problems)
    if lines is None:
        return ()
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    problems += _wrong(str(path), names)
    return tuple(names)


def _wrong(path: str, names: list[str]) -> list[Problem]:
    problems = []
    if not 0 < len(names) <= IGNORE:
        problems.append(Problem(path, f"{len(names)} class names, 1 to {IGNORE} expected", _FIX))
    if "" in names:
        problems.append(Problem(path, f"line {names.index('') + 1} is empty: later labels would shift", _FIX))
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        problems.append(Problem(path, f"names given twice: {some_of(twice)}", "give each label its own name"))
    if _counts(names):
        # Taken as they are, none would be `background`, and label 0 a class.
        found = f"each line begins with its number: {some_of(map(repr, names), 2)}"
        problems.append(Problem(path, found, f"write the names alone, {_FIX}"))
    if len(names) == 1 and ("," in names[0] or names[0].startswith(("[", "{"))):
        problems.append(Problem(path, f"all names stand on one line: {names[0][:60]!r}", _FIX))
    return problems


def _counts(names: list[str]) -> bool:
    """Whether the names stand behind numbers that count from 0 or 1; numbers alone are names."""
    found = [_NUMBERED.match(name) for name in names]
    numbers = [int(one[1]) for one in found if one]
    return len(names) > 1 and numbers in (list(range(len(names))), list(range(1, len(names) + 1)))
