"""The method of docs/methods.md, written file by file as the page shows it: it runs, is scored, keeps the contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import harness.store
from harness.store import latest_runs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.S))
SHARED = ("methods", "search_spaces", "tests/methods")
"""Folders that the page adds files to: those of the copy hold links to ours, and the new files."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the page's files in it, and nothing else new."""
    root = tmp_path_factory.mktemp("house")
    for name in SHARED:
        (root / name).mkdir(parents=True)
        for path in (ROOT / name).iterdir():
            (root / name / path.name).symlink_to(path)
    for name in ("harness", "reports", "pyproject.toml"):
        (root / name).symlink_to(ROOT / name)
    (root / "methods" / "my_method").mkdir()
    (root / "methods" / "my_method" / "__init__.py").touch()
    for name, text in FILES.items():
        assert not (root / name).exists(), f"{name} is there already"
        (root / name).write_text(text)
    return root


def python(house: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, *words], env=env, cwd=house, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_shows_five_files() -> None:
    folder = "methods/my_method"
    assert list(FILES) == [
        f"{folder}/config.py", f"{folder}/presets.py", f"{folder}/method.py", "search_spaces/my_method.py",
        "tests/methods/test_my_method.py",
    ]  # fmt: skip


def test_it_is_planned_with_all_others(house: Path) -> None:
    shown = python(house, "-m", "harness.sweep", "methods=all", "dry_run=true", f"store={house / 'none'}")
    assert "my-method-tags-" in shown
    assert "left out" not in shown
    searched = next(line for line in shown.splitlines() if "searched (*)" in line and "size_start" in line)
    assert "w_size" in searched


def test_it_runs_is_scored_and_stands_on_the_board(house: Path) -> None:
    few = ["data.n_train=16", "data.n_val=8", "data.n_test=8", "iterations=8", "crop=48", "batch=4", "group=4"]
    words = ["methods=my-method", "trials=1", "ray=off", "mlflow=off", *few]
    board = python(house, "-m", "harness.sweep", *words)
    assert re.search(r"^ *1  my-method", board, re.M)
    assert max(map(len, board[board.index("Leaderboard") : board.index("Where to look")].splitlines())) <= 80
    results = harness.store.load(house / "results")
    (run,) = latest_runs(results.runs).to_dicts()
    assert (run["status"], run["method"]) == ("done", "my-method")
    assert set(results.evals["target"]) == {"cam", "pseudo", "segmentation"}
    logged = results.steps.filter(pl.col("name").is_in(["cls", "size", "seg"]))
    first = dict(logged.group_by("name").agg(pl.col("step").min()).iter_rows())
    assert (first["cls"], first["size"]) == (0, 2), "a quarter of eight steps"
    assert first["seg"] > 0
    assert "my-method" in python(house, "-m", "reports.leaderboard", "store=results")


@pytest.mark.slow
def test_it_keeps_the_contract(house: Path) -> None:
    assert "passed" in python(house, "-m", "pytest", "-p", "no:cacheprovider", "tests/methods/test_my_method.py")
