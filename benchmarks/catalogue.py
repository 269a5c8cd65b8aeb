"""The suites and their cases by name."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks import Case, suites
from harness.errors import BadInput, Problem, nearest


def known_suites() -> list[str]:
    """Names of the suites that exist."""
    return sorted(m.name for m in pkgutil.iter_modules(suites.__path__))


def collect(names: list[str], quick: bool, part: str | None) -> list[tuple[str, Case]]:
    """Cases by suite. Raises BadInput for suites and cases that do not exist."""
    known = known_suites()
    problems = [Problem("suite", f"{n!r} is unknown", nearest(n, known)) for n in names if n not in known]
    if problems:
        raise BadInput(problems)
    found = [(n, c) for n in names for c in importlib.import_module(f"benchmarks.suites.{n}").cases(quick)]
    chosen = [(n, c) for n, c in found if part is None or part in c.name]
    if not chosen:
        raise BadInput(Problem("case", f"{part!r} is in no name", nearest(str(part), [c.name for _, c in found])))
    return chosen
