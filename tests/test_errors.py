"""Errors and what may be printed: no secrets, commands that a shell takes as they are meant."""

from __future__ import annotations

import shlex

import pytest

from harness.errors import BadInput, Problem, command, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://u:p@ss/w#rd?@h/db", "postgresql+psycopg2://***@h/db"),
        ("mlflow=http://token@h and http://v:w@i/", "mlflow=http://***@h and http://***@i/"),
        ("mysql://h/db?user=me&password=p%40&ssl=1", "mysql://h/db?user=me&password=***&ssl=1"),
        ("s3://bucket?X-Amz-Signature=ab#f", "s3://bucket?X-Amz-Signature=***#f"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("results/a@b", "results/a@b"),
        ("no://secret", "no://secret"),
    ],
)
def test_secrets_are_hidden(text, shown):
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


def test_a_problem_shows_no_secret():
    error = BadInput(Problem("mlflow", "is given twice: 'http://u:word@h' and 'http://u:word@i'", "give it once"))
    assert "word" not in str(error)
    assert str(error).count("***@") == 2


@pytest.mark.parametrize("name", ["st [1]", "gl_*", "100%", "a#b", "it's", "$HOME", "a;b"])
def test_a_shell_takes_a_printed_command_as_it_is_meant(name):
    text = command("harness.store", "gc", store=name, keep=None)
    assert shlex.split(text) == ["python", "-m", "harness.store", "gc", f"store={name}"]


def test_a_plain_command_is_not_quoted():
    text = command("reports.leaderboard", store="/tmp/a-b_c/results", sweep="5f0", per_class="true")
    assert text == "python -m reports.leaderboard store=/tmp/a-b_c/results sweep=5f0 per_class=true"
    assert command("harness.store", mlflow="http://u:p@h") == "python -m harness.store 'mlflow=http://***@h'"
