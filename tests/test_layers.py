"""The house stands as docs/architecture.md draws it: imports go down its layers, never up, never round in a circle."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "methods", "search_spaces", "reports", "benchmarks")
ROOF = {f"harness.{name}" for name in ("sweep", "train", "evaluate", "predict", "data", "cluster", "store.__main__")}
"""Modules that are run with `-m`: they may import everything, and nothing imports them."""
LAYERS = (
    ("harness.errors",),
    ("harness.files", "reports.format"),
    ("harness.api", "methods.parts.tensors"),
    ("harness.datasets.io", "methods.parts.knobs", "methods.parts.sizes", "methods.parts.nets", "methods.parts.ops"),
    ("harness.datasets.weak", "search_spaces"),
    ("harness.datasets.disk", "methods.parts.views"),
    ("harness.datasets.*", "methods.parts.bases"),
    ("methods.parts.stages",),
    ("harness.datasets", "methods.*"),
    ("harness.datasets.tools", "harness.store"),
    ("harness.scoring", "harness.clusters"),
    ("harness.cli",),
    ("harness.plan",),
    ("harness.engine",),
    ("harness.engine.inference",),
    ("harness.engine.stages",),
    ("harness.engine.run",),
    ("harness.tracking", "harness.evaluation", "harness.testing", "reports.rows"),
    ("harness.tuning", "harness.prediction"),
    ("reports.sections", "reports.papers"),
    ("reports.page",),
    ("reports.*", "benchmarks"),
)
"""From the ground up. A module belongs to the longest name that it begins with; `x.*` are the members of `x` that
have no line of their own. It imports from its own name and from layers below, of which methods take but few."""


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
FLOOR = {room: floor for floor, rooms in enumerate(LAYERS) for room in rooms}


def room_of(module: str) -> str | None:
    """The line of the table that a module belongs to; None for the roof, and for the empty tops of packages."""
    if module in ROOF or module in ("harness", "methods", "methods.parts", "reports"):
        return None
    name = module
    while name not in FLOOR:
        above = name.rpartition(".")[0]
        if f"{above}.*" in FLOOR:
            # Every member is a room of its own: one dataset does not import another.
            return name
        if not above:
            raise AssertionError(f"{module} is in no layer of tests/test_layers.py")
        name = above
    return name


def floor_of(room: str) -> int:
    return FLOOR[room] if room in FLOOR else FLOOR[f"{room.rpartition('.')[0]}.*"]


def test_no_import_runs_up_or_along_a_floor() -> None:
    wrong = []
    for module, others in IMPORTS.items():
        room = room_of(module)
        for other in others if room else ():
            target = room_of(other)
            if target is None or room is None or target == room:
                continue
            if floor_of(target) >= floor_of(room):
                wrong.append(f"{module} (floor {floor_of(room)}) imports {other} (floor {floor_of(target)})")
    assert not wrong, "\n".join(wrong)


def test_the_table_of_the_architecture_page_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", text, re.M)
    assert [(int(n), tuple(re.findall(r"`([^`]+)`", names))) for n, names in rows] == list(enumerate(LAYERS))


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


def test_methods_and_parts_are_written_against_the_interfaces_alone() -> None:
    wrong = set()
    for name, others in IMPORTS.items():
        if not name.startswith(("methods.", "search_spaces.")):
            continue
        allowed = (f"methods.{name.split('.')[1]}.", "methods.parts.", "harness.api.", "harness.errors")
        wrong |= {(name, o) for o in others if not f"{o}.".startswith(tuple(f"{a.rstrip('.')}." for a in allowed))}
    assert not wrong


def test_nothing_imports_the_modules_that_are_run() -> None:
    assert not {(name, other) for name, others in IMPORTS.items() for other in others & ROOF}


@pytest.mark.parametrize("package", ["harness.plan", "harness.engine", "methods", "harness.api", "harness.cli"])
def test_neither_ray_nor_mlflow_below_the_tuner(package: str) -> None:
    outside = set()
    for name, path in MODULES.items():
        if not f"{name}.".startswith(f"{package}."):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            outside |= {(name, n) for n in names if n.split(".")[0] in ("ray", "mlflow")}
    assert not outside
