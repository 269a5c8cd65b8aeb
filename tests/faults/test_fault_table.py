"""`docs/faults.md` holds what was seen, and every row of it is a test."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fault_table import PAGE, Row, between, page, seen, tables, took


def test_the_page_is_made_of_the_rows_that_were_seen() -> None:
    text = PAGE.read_text()
    assert page(text) == text


@pytest.mark.parametrize("table", tables())
def test_every_row_is_a_test_of_its_table(table: str) -> None:
    sources = [file.read_text() for file in Path(__file__).parent.glob("test_*.py")]
    of_it = [source for source in sources if f'\nTABLE = "{table}"\n' in source]
    names = {name for source in of_it for name in re.findall(r"^def test_(\w+)\(bench\b", source, re.M)}
    assert {name.partition("[")[0] for name in seen(table)} <= names


def test_rows_stand_between_the_marks_of_their_table() -> None:
    text = "a\n<!-- rows of x -->\nold\n<!-- end of x -->\nb\n"
    row = Row("a | b", "step 6", 1.25, "x | y", 2, 0, True)
    lines = between(text, "x", {"r": row}).splitlines()
    assert lines[:2] + lines[-2:] == ["a", "<!-- rows of x -->", "<!-- end of x -->", "b"]
    assert lines[4:-2] == ["| a | b | step 6 | 1.2 s | x \\| y | 2 | 0 | yes |"]
    timed = [replace(row, seconds=90.0, core_seconds=60.0), replace(row, seconds=30.0, core_seconds=15.0)]
    assert took([row]) == ""
    line = "2 of these 3 rows were timed: 2 min by the clock, 1 core-minutes."
    assert took([row, *timed]).strip() == line
    with pytest.raises(ValueError, match="substring"):
        between(text, "z", {})
