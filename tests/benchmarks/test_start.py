"""The end of a first step, as a run's heartbeat tells it, and a sweep that ends without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import start
from harness.api.registry import registry
from harness.cli.parsing import parse_rows
from harness.cli.run_words import Words
from harness.engine.heartbeat import Heartbeat
from harness.plan.plan import make_plan


def test_its_sweep_is_one_run(tmp_path: Path) -> None:
    words = start.sweep_of("cam", tmp_path)[3:]
    (planned,) = make_plan(parse_rows(words, Words, "sweep", registry().names())).studies
    assert planned.study.budget == 1
    assert planned.study.seeds == (0,)


def test_the_first_report_of_training_is_the_end_of_the_first_step(tmp_path: Path) -> None:
    now = [100.0]
    (tmp_path / "work" / "key").mkdir(parents=True)
    heartbeat = Heartbeat(tmp_path / "work" / "key", clock=lambda: now[0])
    heartbeat.write(stage="start", step=0)
    assert start.first_step(tmp_path) is None
    now[0] = 100.4
    heartbeat.write(stage="train", step=1)
    assert start.first_step(tmp_path) is None, "written at most every second"
    now[0] = 101.2
    heartbeat.write(stage="train", step=2)
    assert start.first_step(tmp_path) == 100.4


def test_a_sweep_that_ends_without_a_step_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        start.start([sys.executable, "-c", "raise SystemExit(2)"], tmp_path)


def test_a_sweep_is_ended_after_its_first_step(tmp_path: Path) -> None:
    code = f"""
import time
from harness.engine.heartbeat import Heartbeat
from pathlib import Path
folder = Path({str(tmp_path)!r}) / "work" / "key"
folder.mkdir(parents=True)
Heartbeat(folder).write(stage="train", step=1)
time.sleep(600)
"""
    assert 0 < start.start([sys.executable, "-c", code], tmp_path) < 300
