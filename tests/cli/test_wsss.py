"""`wsss`: every command under one name."""

from __future__ import annotations

import sys

import pytest

from harness.cli.packaged import cluster_files, plans
from harness.cli.plan_files import read_plan_file
from harness.cli.wsss import COMMANDS, main, reports


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wsss"])


def test_it_runs_the_modules_of_its_commands(capsys):
    assert main(["store", "verify", "stor=x"]) == 2
    assert "did you mean store" in capsys.readouterr().err
    assert main(["sweep", "--help"]) == 0
    assert "usage: python -m harness.sweep" in capsys.readouterr().out
    assert main(["leaderboard", "store=/no/such/folder", "per_class=2"]) == 2
    assert "per_class: '2'" in capsys.readouterr().err


def test_it_names_all_commands_and_answers_unknown_ones(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert {"leaderboard", "compare", "ablations", "main_results"} <= reports().keys()
    assert all(f"  {name} " in text for name in (*COMMANDS, *reports(), "files"))
    assert main(["swep", "methods=all"]) == 2
    assert "did you mean sweep" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


def test_plans_are_found_by_name_and_files_say_where(capsys):
    assert main(["files"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [*map(str, plans().values()), *map(str, cluster_files())]
    problems: list = []
    assert read_plan_file("tags", problems) == read_plan_file(str(plans()["tags"]), problems)
    assert not problems
    read_plan_file("tgas", problems)
    assert "by name: " in problems[0].fix
