"""docs/operators.md lists what exists, under the names and signatures that exist."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from harness.api.registry import registry

DOC = Path(__file__).parent.parent / "docs" / "operators.md"
HEADER = ["id", "import path", "signature", "shapes and units"]


ENTRY_HEADER = ["what", "import path", "signature", "what for"]


def tables() -> list[list[list[str]]]:
    """The tables of the page, each a list of rows, the header and the line below it among them."""
    found: list[list[list[str]]] = []
    before = ""
    for line in DOC.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
        before = line
    return found


def table() -> list[list[str]]:
    return tables()[0]


ROWS = table()[2:]
ENTRIES = tables()[1][2:]


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_table_has_its_columns_and_no_id_twice() -> None:
    assert table()[0] == HEADER
    assert all(len(row) == 4 and all(row) for row in ROWS)
    ids = [row[0] for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A9", "A10", "fsr 2.5 L_patch"} <= set(ids)


def test_the_entry_points_are_all_there() -> None:
    assert tables()[1][0] == ENTRY_HEADER
    assert all(len(row) == 4 and all(row) for row in ENTRIES)
    names = {row[1].rpartition(".")[2] for row in ENTRIES}
    asked = "registry resolve BuildInfo Batch Progress Prediction fitted Passes PRESETS color_jitter scale_pad_crop"
    asked += " Segmenter TagSegmenter build_encoder open_dataset plan_splits"
    assert set(asked.split()) <= names
    assert len(names) == len(ENTRIES)


def test_every_method_has_a_row_for_its_step() -> None:
    assert {f"{name} step" for name in registry().names()} <= {row[0] for row in ROWS}
    assert {row[1] for row in ROWS if row[0].endswith(" step")} == {"harness.testing.build"}


@pytest.mark.parametrize("row", [*ROWS, *ENTRIES], ids=[row[0] for row in [*ROWS, *ENTRIES]])
def test_every_row_imports_with_its_signature(row: list[str]) -> None:
    _, path, signature, _ = row
    found = load(path)
    if signature == "a value":
        assert found
        return
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
