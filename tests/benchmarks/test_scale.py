"""The store of many runs that costs are measured on, and what a process costs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import polars as pl
import pytest

from benchmarks import scale
from harness.store import load
from harness.store.maintenance import verify


def test_the_store_is_as_runs_write_it(tmp_path: Path) -> None:
    scale.make_store(tmp_path, scale.A_STUDY)
    report = verify(tmp_path)
    assert report.sound
    assert report.files == 7 * scale.A_STUDY, "runs, trials, params, evals, counts, curves and steps of each run"
    results = load(tmp_path, ("runs", "evals", "counts"))
    assert set(results.runs["status"]) == {"done"}
    of_run = results.counts.join(results.evals.select("eval", "key"), on="eval")
    assert of_run.group_by("key").len()["len"].unique().to_list() == [4500]
    (file,) = (tmp_path / "counts").glob("s000t007x0.parquet")
    assert pl.read_parquet(file)["eval"].str.starts_with("s000t007x0-").all()


def test_a_process_costs_what_it_burns_and_a_failure_is_one() -> None:
    cheap = scale.cost_of(["json.tool", "--help"])
    dear = scale.cost_of(["timeit", "-n", "1", "-r", "1", "sum(range(9**8))"])
    assert dear.seconds > cheap.seconds
    assert cheap.mib > 1
    with pytest.raises(subprocess.CalledProcessError):
        scale.cost_of(["json.tool", "--no-such-word"])
