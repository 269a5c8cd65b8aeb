"""Ray beside the rest of a plan: when it starts, and that it ends where networks do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ledger_toys import ledger, plan, write_done

from harness import sweep
from harness.errors import BadInput
from harness.plan import row
from harness.tuning import early, ray_driver

SMALL = ["methods=cam", "data.n_train=16", "data.n_val=8", "data.n_test=8", "crop=48", "iterations=12", "gpus=0"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of Ray, which does not start: its address, then `end`."""
    told: list[Any] = []

    @contextmanager
    def runtime(address: str | None) -> Iterator[None]:
        told.append(address)
        try:
            yield
        finally:
            told.append("end")

    monkeypatch.setattr(ray_driver, "runtime", runtime)
    return told


def ask(root: Path, *words: str) -> None:
    with ExitStack() as stack:
        early.start_early(plan(root, *words), stack)


def test_it_starts_where_a_run_is_missing(tmp_path: Path, started: list[Any]) -> None:
    ask(tmp_path, "gpus=0")
    assert started == [None, "end"]


@pytest.mark.parametrize("word", ["dry_run=true", "ray=off", "address=auto"])
def test_it_does_not_start_for(tmp_path: Path, started: list[Any], word: str) -> None:
    ask(tmp_path, "gpus=0", word)
    assert started == []


def test_it_does_not_start_with_nothing_to_do(tmp_path: Path, started: list[Any]) -> None:
    words = ["protocol=fixed", "seeds=1", "gpus=0"]
    write_done(ledger(tmp_path, *words), {"val": 5, "test": 5})
    ask(tmp_path, *words)
    assert started == []
    ask(tmp_path, *words, "seed=3")
    assert len(started) == 2


def test_it_does_not_start_for_a_store_that_cannot_be_written(
    tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as root_may_write_everywhere:
        root_may_write_everywhere.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        ask(tmp_path / "new" / "store", "gpus=0")
    assert started == []
    ask(tmp_path / "new" / "store", "gpus=0")
    assert len(started) == 2
    assert not (tmp_path / "new").exists(), "nothing is made before the plan is whole"


@pytest.mark.parametrize(
    "wrong", ["cam.w_seg=-1", "iterations=0", "data.root=/nowhere", "backbone.name=resnet5", "data.tune=nowhere"]
)
def test_wrong_words_start_nothing(tmp_path: Path, started: list[Any], wrong: str) -> None:
    with pytest.raises(BadInput):
        sweep.run([*SMALL, f"store={tmp_path}", wrong])
    assert started == []


def test_it_ends_where_a_network_does_not_fit(
    tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(planned: Any) -> None:
        raise BadInput(row.Problem("crop", "does not fit", "another"))

    monkeypatch.setattr(row, "check_networks", check)
    with pytest.raises(BadInput, match="does not fit"):
        sweep.run([*SMALL, f"store={tmp_path}"])
    assert started[1:] == ["end"]


def test_words_and_data_are_found_good_without_torch(tmp_path: Path) -> None:
    """Networks wait here until Ray would have started: importing torch before would delay it by seconds."""
    code = """
import json, sys
from contextlib import ExitStack
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.plan import row
from harness.plan.plan import make_plan
from harness.tuning.early import first_trial_missing
seen = {}
row.check_networks = lambda planned: None
def beside(plan):
    seen.update(missing=first_trial_missing(plan), torch="torch" in sys.modules, ray="ray" in sys.modules)
make_plan(parse(sys.argv[1:], Words, "sweep", ["cam"]), beside=beside)
print(json.dumps(seen))
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, *SMALL, f"store={tmp_path}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env={**os.environ})
    assert json.loads(found.stdout) == {"missing": True, "torch": False, "ray": False}
