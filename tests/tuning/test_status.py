"""`sweep status`: what it prints, from heartbeats, outlines and trials that are written by hand."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import polars as pl
import pytest

from harness.cli.run_words import StatusWords
from harness.engine.checkpoint import found_checkpoints
from harness.engine.heartbeat import FILE, Heartbeat
from harness.store import Store
from harness.tuning.status import show_status


def trial(number: int, status: str, role: str = "trial") -> dict[str, object]:
    return {
        "sweep": "w", "study": "cam-tags-1", "trial": number, "key": f"k{number}", "role": role,
        "protocol": "held-out", "status": status, "reached": 1.0, "objective": 0.5 if status == "done" else None,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "sweeps").mkdir()
    studies = [{"id": "cam-tags-1", "method": "cam", "trials": 4, "seeds": [0]}]
    (tmp_path / "sweeps" / "w.json").write_text(
        json.dumps({"sweep": "w", "pid": os.getpid(), "words": [], "studies": studies})
    )
    return Store(tmp_path)


def shown(store: Store, capsys: pytest.CaptureFixture[str]) -> str:
    assert show_status(StatusWords(store=str(store.root))) == 0
    return capsys.readouterr().out


def test_what_runs_and_what_died_is_said_in_brackets(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Heartbeat(store.work("a")).write(key="a", study="cam-tags-1", trial=1, role="trial", seed=0, stage="train", step=3)
    Heartbeat(store.work("b")).write(key="b", study="cam-tags-1", trial=2, role="trial", seed=0, stage="train", step=3)
    path = store.work("b") / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "updated": 0.0}))
    text = " ".join(shown(store, capsys).split())
    assert re.search(r"cam-tags-1 trial 1 seed 0: train 3/0 \[running\]", text)
    dead = r"cam-tags-1 trial 2 seed 0: train 3/0 \[dead since \d+ h \d+ min, goes on "
    assert re.search(dead + r"from the start of stage train\]", text)
    (store.root / "cache" / "c" / "step-3").mkdir(parents=True)
    path.write_text(json.dumps({**json.loads(path.read_text()), "folder": "cache/c"}))
    assert found_checkpoints(store.root / "cache" / "c"), "so are checkpoints named"
    assert re.search(dead + r"from its checkpoint\]", " ".join(shown(store, capsys).split()))


def test_a_trial_that_failed_first_counts_once(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name, row in (
        ("w-0000", trial(0, "done")),
        ("w-0001", trial(1, "failed")),
        ("w-0001~2", trial(1, "done")),
        ("w-0002", trial(2, "failed")),
        ("w-0002~2", trial(2, "failed") | {"reached": 0.5}),
        ("w-0003", trial(3, "pruned")),
    ):
        store.write("trials", name, pl.DataFrame([row], schema_overrides={"objective": pl.Float64}))
    line = next(line for line in shown(store, capsys).splitlines() if "cam-tags-1" in line)
    assert re.findall(r"[\d./]+", line.split("cam-tags-1")[1]) == ["4", "2", "1", "1", "0/1", "50.0"]


def test_a_sweep_is_finished_once_all_trials_and_seeds_are_there(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    outline = store.root / "sweeps" / "w.json"
    gone = 2**22 + 1  # above the largest process number
    outline.write_text(json.dumps({**json.loads(outline.read_text()), "pid": gone}))
    for number in range(4):
        assert "nothing runs; the command that started the sweep continues it" in shown(store, capsys)
        row = trial(number, "done")
        store.write("trials", f"w-{number}", pl.DataFrame([row], schema_overrides={"objective": pl.Float64}))
    assert f"driver {gone} does not run" in shown(store, capsys), "the chosen config has not run"
    store.write("trials", "w-final", pl.DataFrame([trial(2, "done", "final")]))
    text = shown(store, capsys)
    assert "sweep w: finished" in text
    assert "continues it" not in text
