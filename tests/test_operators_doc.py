"""docs/operators.md lists what exists, under the names and signatures that exist."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

DOC = Path(__file__).parent.parent / "docs" / "operators.md"
HEADER = ["id", "import path", "signature", "shapes and units"]


def table() -> list[list[str]]:
    lines = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


ROWS = table()[2:]


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_table_has_its_columns_and_no_id_twice() -> None:
    assert table()[0] == HEADER
    assert all(len(row) == 4 and all(row) for row in ROWS)
    ids = [row[0] for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A9", "A10", "fsr 2.5 L_patch"} <= set(ids)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_row_imports_with_its_signature(row: list[str]) -> None:
    _, path, signature, _ = row
    found = load(path)
    parameters = inspect.signature(found).parameters.values()
    plain = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
    assert signature == f"{path.rpartition('.')[2]}{plain}"
    assert (found.__doc__ or "").strip()


def test_every_module_of_an_operator_has_a_version() -> None:
    modules = {row[1].rpartition(".")[0] for row in ROWS if row[1].startswith("methods.parts.")}
    assert modules
    for module in modules:
        version = importlib.import_module(module).VERSION
        assert isinstance(version, int)
        assert version >= 1
