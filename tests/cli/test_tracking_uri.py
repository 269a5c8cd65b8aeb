"""Addresses of MLflow that are refused before anything runs, and those that are MLflow's own affair."""

from __future__ import annotations

import pytest

from harness.cli.parsing import main
from harness.cli.tracking_uri import tracking_problems
from harness.errors import EXIT_BAD_INPUT
from harness.store.__main__ import run as store_command
from harness.sweep import run as sweep


@pytest.mark.parametrize(
    "uri",
    [
        None, "off", "http://localhost:5000", "HTTP://localhost:5000", "https://user:word@mlflow.example.org/at/a/path",
        "sqlite:///results/ml.db", "sqlite:////abs/ml.db", "postgresql+psycopg2://user:word@host:5432/db",
        "mysql://host/db", "file:///abs/mlruns", "databricks", "databricks://profile", "mlruns", "./results/mlruns",
        "/abs/mlruns",
    ],
)  # fmt: skip
def test_addresses_of_mlflow_pass(uri):
    assert tracking_problems(uri) == []


@pytest.mark.parametrize(
    ("uri", "found", "fix"),
    [
        ("localhost:5000", "without its protocol", "http://localhost:5000"),
        ("10.0.0.7:5000/base", "without its protocol", "http://10.0.0.7:5000/base"),
        ("[::1]:5000", "without its protocol", "http://[::1]:5000"),
        ("me:word@host:5000", "without its protocol", "http://***@host:5000"),
        ("htp://host:5000", "knows no htp://", "did you mean http"),
        ("nonsense://", "knows no nonsense://", "known: databricks"),
        ("s3://bucket/mlruns", "knows no s3://", "known: databricks"),
        ("sqllite+x:///ml.db", "knows no sqllite+x://", "sqlite"),
    ],
)
def test_others_are_refused_with_what_would_be_right(uri, found, fix):
    (problem,) = tracking_problems(uri)
    assert problem.where == "mlflow"
    assert found in problem.found
    assert fix in problem.fix
    assert "word" not in problem.found + problem.fix


def test_protocols_of_installed_plugins_pass(monkeypatch, tmp_path):
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mlflow.tracking_store]\ntheirs = theirs:Store\n")
    assert tracking_problems("theirs://x")
    monkeypatch.syspath_prepend(tmp_path)
    assert tracking_problems("theirs://x") == []


@pytest.mark.parametrize("words", [["methods=cam", "dry_run=true"], ["methods=cam"]])
def test_a_sweep_and_its_plan_say_it_before_anything_runs(words, tmp_path, capsys):
    argv = [*words, "mlflow=nonsense://", f"store={tmp_path / 'store'}", "trials=0"]
    assert main(sweep, argv) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "MLflow knows no nonsense://" in said
    assert "trials" in said, "all problems at once"
    assert not (tmp_path / "store").exists()


def test_an_export_says_it(tmp_path, capsys):
    assert main(store_command, ["export-mlflow", f"store={tmp_path}", "mlflow=localhost:5000"]) == EXIT_BAD_INPUT
    assert "http://localhost:5000" in capsys.readouterr().err
