"""Memory of an actor over its trials, and what a dry run takes beyond its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks import growth
from harness.api.registry import registry
from harness.cli.parsing import parse_rows
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan.plan import make_plan
from harness.store import SCHEMAS, Store


def test_its_sweep_runs_one_trial_at_a_time(tmp_path: Path) -> None:
    words = growth.sweep_of(growth.GrowthWords(trials=7, tier="smoke"), str(tmp_path))
    study = make_plan(parse_rows(words, Words, "sweep", registry().names())).studies[0].study
    assert study.budget == 7
    assert not study.stops_early
    assert study.cores_per_run == (os.cpu_count() or 1)


def test_peaks_are_in_the_order_of_trials(tmp_path: Path) -> None:
    for place, mib in ((2, 120), (0, 100), (1, 110)):
        said = {"key": f"k{place}", "status": "done", "started": f"2026-01-0{place + 1}", "peak_memory": mib << 20}
        row = {**dict.fromkeys(SCHEMAS["runs"]), **said}
        Store(tmp_path).write("runs", f"k{place}", pl.DataFrame([row], schema_overrides=SCHEMAS["runs"]))
    assert growth.peaks(str(tmp_path)) == [100.0, 110.0, 120.0]


def test_growth_is_told_from_the_fifth_trial_on() -> None:
    assert growth.growth([1.0, 50.0, 90.0, 99.0, 100.0, 105.0, 109.0]) == pytest.approx(1.09)
    with pytest.raises(BadInput, match="5 trials were done"):
        growth.growth([1.0] * 5)


def test_a_dry_run_takes_no_more_than_its_imports_and_150_mb() -> None:
    code = """
import resource, sys
import timm, torch
import harness.plan.build, harness.tuning.describe, methods.cam.method, methods.fsr.method, methods.full.method
from harness import sweep
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
words = ["methods=cam,fsr,full", "data=shapes", "tier=lab", "dry_run=true", "gpus=0", "store=" + sys.argv[1]]
assert sweep.run(words) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, "/nowhere"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env={**os.environ})
    assert int(found.stdout.splitlines()[-1]) < 150_000, "KiB"
