"""What is wrong with the own code of a method or dataset, as one problem: where it stands, what it is, what mends."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from harness.api.entries import Entry
from harness.api.spec import MethodConfig, MethodSpec
from harness.api.vocabulary import LABELS, TARGETS, VARIANTS
from harness.errors import BrokenPlugin, HarnessError, Problem

CORE = str(Path(__file__).parents[1])
IMPORTLIB = str(Path(str(importlib.util.__file__)).parent)
UNSAYABLE = re.compile(r"[^A-Za-z0-9_-]")
"""What the name of a method cannot hold: commas, dots, plus and equal signs part words."""


@contextmanager
def blamed_on(kind: Literal["method", "dataset"], entry: Entry, does: str = "fails") -> Iterator[None]:
    """Raises BrokenPlugin, with file and line, for what the code of a method or dataset raises; `does` says when.

    What the harness itself raises passes; but opening a dataset reads what lies on a disk, which may fail in any way:
    that is blamed on it too.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as e:
        where = _where(e, entry.target)
        if not where and kind == "method" and not isinstance(e, ImportError | AttributeError):
            raise
        found = f"{kind} {entry.name!r} ({entry.source}) {does}: {type(e).__name__}: {_first_line(e)}"
        raise BrokenPlugin(Problem(where or entry.target, found[:400], _fix(kind, e))) from e


def spec_problems(spec: MethodSpec, source: str) -> list[Problem]:
    """What a spec declares that no study could use: names, lists of words, knobs without a source."""
    where = f"method {spec.name!r} ({source})"
    problems = []
    if UNSAYABLE.search(spec.name):
        problems.append(Problem(where, "has a name that is no word", "use letters, digits, - and _"))
    for field, known in (("labels", LABELS), ("targets", TARGETS), ("variants", VARIANTS)):
        values = getattr(spec, field)
        odd = [v for v in values if v not in known]
        if odd or not values:
            found = f"declares {field} {odd[0]!r}" if odd else f"declares no {field}"
            problems.append(Problem(where, found, f"known: {', '.join(known)}"))
    if not (inspect.isclass(spec.config) and issubclass(spec.config, MethodConfig)):
        return [*problems, Problem(where, f"config {spec.config!r} is no MethodConfig", "derive it from MethodConfig")]
    for knob in spec.config.knobs().values():
        if not str(knob.metadata.get("source") or "").strip():
            found = f"knob {knob.name} of method {spec.name!r} has no source"
            fix = f'write {knob.name}: ... = knob(value, "what it is", source="paper section, code, or why")'
            problems.append(Problem(line_of(spec.config, knob), found, fix))
    return problems


def line_of(config: type, knob: dataclasses.Field[object]) -> str:
    """`file:line` where a knob is defined, in the config or in the class that it inherits it from."""
    for cls in config.__mro__:
        if knob.name in vars(cls).get("__annotations__", {}):
            lines, first = inspect.getsourcelines(cls)
            at = next((n for n, text in enumerate(lines) if re.match(rf"\s*{knob.name}\s*:", text)), 0)
            return f"{inspect.getsourcefile(cls)}:{first + at}"
    return f"{inspect.getsourcefile(config)}"


def _where(error: Exception, target: str) -> str:
    """`file:line` of the innermost frame in the package of the target, else of the last one outside the harness."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(("<", CORE, IMPORTLIB))]
    package = importlib.util.find_spec(target.partition(":")[0].partition(".")[0])
    home = str(Path(package.origin).parent) if package and package.origin else CORE
    found = [f for f in frames if f.filename.startswith(home)] or frames
    return f"{found[-1].filename}:{found[-1].lineno}" if found else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _fix(kind: str, error: Exception) -> str:
    text, page = _first_line(error), f"docs/{kind}s.md"
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name}, or mend the import; {page} has a {kind} to copy"
    if "abstract" in text:
        return f"write the members that are named; {page} has a {kind} to copy"
    if text.startswith("knob()"):
        return 'write knob(value, "what it is", source="paper section, code, or why")'
    return f"mend it there, or uninstall it: all other {kind}s work; {page} has one to copy"
