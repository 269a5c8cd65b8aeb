"""The house stands as design.md draws it: imports go one way, never round in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from harness.registry import registry
from methods.parts.uses import SEGMENTER, SUPERVISED, TAG_SEGMENTER

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "methods", "search_spaces", "reports", "benchmarks")
ROOF = {f"harness.{name}" for name in ("sweep", "train", "evaluate", "predict", "data", "store.__main__")}
"""Modules that are run with `-m`: they may import everything, and nothing imports them."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """Our modules that a module imports anywhere: at its top, inside functions, for type checking."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & MODULES.keys() or {node.module}
    return found & MODULES.keys()


IMPORTS = {name: imported(ast.parse(path.read_text())) - {name} for name, path in MODULES.items()}


def test_no_modules_import_each_other_in_a_circle() -> None:
    order = list(TopologicalSorter(IMPORTS).static_order())
    assert len(order) == len(MODULES)


def test_the_core_knows_no_method() -> None:
    upward = {
        (name, other)
        for name, others in IMPORTS.items()
        if name.startswith("harness") and name not in ROOF
        for other in others
        if other.split(".")[0] != "harness"
    }
    assert not upward


def test_a_method_never_imports_another_and_no_machinery() -> None:
    wrong = set()
    for name, others in IMPORTS.items():
        if not name.startswith("methods."):
            continue
        own = name.split(".")[1]
        allowed = {own, "parts"}
        wrong |= {(name, o) for o in others if o.startswith("methods.") and o.split(".")[1] not in allowed}
        wrong |= {(name, o) for o in others if o.startswith(("harness.engine", "harness.tuning", "harness.store"))}
    assert not wrong


def test_nothing_imports_the_modules_that_are_run() -> None:
    assert not {(name, other) for name, others in IMPORTS.items() for other in others & ROOF}


def test_loop_and_methods_import_neither_ray_nor_mlflow() -> None:
    outside = set()
    for name, path in MODULES.items():
        if not name.startswith(("harness.engine", "methods")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            outside |= {(name, n) for n in names if n.split(".")[0] in ("ray", "mlflow")}
    assert not outside


def test_a_method_names_every_versioned_part_that_it_imports() -> None:
    methods = {name.split(".")[1] for name in MODULES if name.endswith(".config") and name.startswith("methods.")}
    assert methods == set(registry().names())
    for name in methods:
        reached: set[str] = set()
        todo = [f"methods.{name}.method"]
        while todo:
            new = {other for other in IMPORTS[todo.pop()] if other.startswith("methods.")} - reached
            reached |= new
            todo += new
        versioned = {other for other in reached if "\nVERSION = " in MODULES[other].read_text()}
        uses = registry().spec(name).uses
        # The file on which these stand holds a second base, whose pseudo masks they do not make.
        unused = set(TAG_SEGMENTER) - set(SEGMENTER) if uses == SUPERVISED else set()
        assert versioned - unused == set(uses), name
