"""Nodes that do not see the store, or have other code than the driver."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import harness
from harness.files import file_digest
from harness.tuning.nodes import Home, last_line, marked, problem_of, unfit, versions


def test_a_node_that_sees_the_store_and_has_the_same_code_is_fit_and_the_mark_goes(tmp_path):
    with marked(tmp_path / "store") as home:
        again = Home.of(json.loads(json.dumps(home.to_dict())))
        assert again == home
        assert unfit(again) == ""
        assert Path(home.mark).parent == tmp_path / "store/work"
    assert not list((tmp_path / "store/work").iterdir())
    began = time.monotonic()
    assert unfit(home, wait_s=0.3) == (
        f"it does not see the store {tmp_path / 'store'} of this driver (no such file or directory)"
    )
    assert 0.3 <= time.monotonic() - began < 3


def test_a_folder_of_the_same_name_is_not_the_store(tmp_path):
    with marked(tmp_path) as home:
        assert "another folder lies there" in unfit(replace(home, text="0"), wait_s=0)


def test_other_versions_are_all_named(tmp_path):
    with marked(tmp_path) as home:
        other = replace(home, versions={**home.versions, "uv.lock": "0123", "harness": "9.9", "left out": "1"})
        lock = home.versions["uv.lock"]
        said = f"it has harness {harness.__version__} instead of 9.9, uv.lock {lock} instead of 0123, "
        assert sorted(unfit(other).removeprefix("it has ").split(", ")) == sorted(
            f"{said}left out none instead of 1".removeprefix("it has ").split(", ")
        )


def test_versions_are_those_of_python_the_harness_and_the_lock():
    found = versions()
    lock = Path(harness.__file__).parents[1] / "uv.lock"
    assert found["Python"].startswith("3.")
    assert found["uv.lock"] == file_digest(lock)[:12]


def test_each_kind_has_its_own_fix():
    assert "mount the folder" in problem_of("n (10.0.0.2)", "it does not see the store /x").fix
    assert "node.sh environment" in problem_of("n", "it has uv.lock 1 instead of 2").fix
    assert "project" in problem_of("n", "cannot run the harness: ModuleNotFoundError: No module named 'harness'").fix
    assert last_line(RuntimeError("a\n  b\nValueError: c\n")) == "ValueError: c"
    assert last_line(RuntimeError("")) == "RuntimeError"
