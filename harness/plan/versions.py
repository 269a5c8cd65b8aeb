"""Integer versions of what can move scores; they go into a run's key. Parts are found from what a method imports."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.api.spec import MethodSpec

LOOP = 1
SCORING = 1
FITTING = 1
PARTS = "methods.parts"
VERSION = "VERSION"
REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def versions(*specs: MethodSpec | None) -> dict[str, int]:
    """Versions of loop, scoring, fitting, the methods, and the parts that these import, directly or through others.

    A part is a module with an integer `VERSION` in the package of `MethodSpec.build` or in `methods.parts`, which goes
    by its last name, wherever it lies. What a method's recipe names (`module:function`) counts as imported. A part
    enters once its version exceeds 1: a new part, or an old one that a method imports anew, leaves stored results
    valid. The parts that were in the keys before this rule stay in them (`methods/parts/keyed_parts.json`).
    """
    found = {"loop": LOOP, "scoring": SCORING, "fitting": FITTING}
    for spec in specs:
        if spec is None:
            continue
        found[spec.name] = spec.version
        always = {_name(leaf) for leaf in _keyed()["methods"].get(spec.name, ())}
        parts = {name: version for module in _starts(spec) for name, version in part_versions(module).items()}
        found |= {name: version for name, version in parts.items() if version > 1 or name in always}
    return dict(sorted(found.items()))


def _starts(spec: MethodSpec) -> list[str]:
    """The modules that a method names: of its `build`, and of what its recipe's stages do and build."""
    found, recipe = [spec.build.partition(":")[0]], spec.recipe.partition(":")[0]
    if not recipe.startswith("harness."):
        found += [recipe, *_named(recipe)]
    return found


@cache
def _named(module: str) -> tuple[str, ...]:
    """Modules of the strings `module:function` in a module, those of the harness left out."""
    source = _source(module)
    if source is None:
        return ()
    tree = ast.parse(Path(str(source.origin)).read_text(encoding="utf-8"))
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    names = (match[1] for text in strings if (match := REFERENCE.fullmatch(text)))
    return tuple(dict.fromkeys(name for name in names if not name.startswith("harness.")))


@cache
def part_versions(module: str) -> Mapping[str, int]:
    """Versions of the parts that a module reaches by imports, by the name they have in keys. Runs no part's code."""
    own = module.partition(".")[0]
    found: dict[str, int] = {}
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        spec = None if name in seen or not _ours(name, own) else _source(name)
        seen.add(name)
        if spec is None:
            continue
        tree = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))
        version = _version(tree)
        if version is not None:
            found[key_name(name)] = version
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        todo += [m for m in _imported(tree, package) if m not in seen]
    return found


def key_name(module: str) -> str:
    """A part's name in keys: of those in `methods.parts`, without its folder."""
    if not module.startswith(f"{PARTS}."):
        return module
    leaf = module.rpartition(".")[2]
    return _name(_keyed()["renamed"].get(leaf, leaf))


def _name(leaf: str) -> str:
    return f"{PARTS}.{leaf}"


@cache
def _keyed() -> dict[str, Any]:
    """`methods`: the parts in the keys of each method whatever its version. `renamed`: file to key."""
    found: dict[str, Any] = json.loads((files(PARTS) / "keyed_parts.json").read_text())
    return found


def _ours(module: str, own: str) -> bool:
    return module.partition(".")[0] == own or f"{module}.".startswith(f"{PARTS}.")


@cache
def _source(module: str) -> ModuleSpec | None:
    """Where a module of Python source lies; None for what is no such module. Only packages above it are imported."""
    above = module.rpartition(".")[0]
    if above and not ((package := _source(above)) and package.submodule_search_locations):
        return None
    spec = find_spec(module)
    return spec if spec is not None and str(spec.origin).endswith(".py") else None


def _version(tree: ast.Module) -> int | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == VERSION for t in node.targets):
            value = ast.literal_eval(node.value)
            return value if isinstance(value, int) else None
    return None


def _imported(tree: ast.Module, package: str) -> list[str]:
    """Modules that a module may import, anywhere in it; names that are no modules are among them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found
