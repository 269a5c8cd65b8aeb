"""Studies through Ray: overlap, death of an actor, several workers. Starts one runtime for the whole file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tuning_toys import MemoryHooks, execute, study

from harness.tuning.drivers import run_local, run_studies

pytestmark = pytest.mark.ray
TOY = "tuning_toys:execute"


def lines_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in root.glob("ran-*.json")]


def keys(records: Any) -> list[Any]:
    return sorted((r.study, r.trial, r.role, r.seed, r.key, r.outcome.status, r.outcome.objective) for r in records)


def test_one_sweep_overlaps_survives_a_kill_and_equals_the_local_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two studies are slow, in one an actor is killed by SIGKILL, in one it loses its GPU, one raises: rows equal those
    without Ray."""

    def act(study: Any, knobs: Any, seed: int) -> str:
        if knobs["x"] == 0.5 and study.method in ("dier", "loser"):
            return {"dier": "die once", "loser": "lose gpu"}[study.method]
        return {"slow1": "meet", "slow2": "meet", "raiser": "bug"}.get(study.method, "")

    plan = [
        study("a", method="slow1", search="rules", trials=2, seeds=(0, 1)),
        study("b", method="slow2", search="rules", trials=2, seeds=(0, 1)),
        study("c", method="dier", search="rules", trials=2),
        study("d", method="raiser", search="rules", trials=2),
        study("f", method="loser", search="rules", trials=2),
        study("e", method="stopped", trials=5, first_rung=0.3),
    ]
    hooks = MemoryHooks(act=act, root=str(tmp_path))
    records = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    spans = sorted((line["started"], line["ended"]) for line in lines_of(tmp_path))
    long = [(a, b) for a, b in spans if b - a > 1]
    assert any(a[1] > b[0] + 0.5 for a, b in itertools.pairwise(long)), "no two trials overlapped"
    assert len(list(tmp_path.glob("died-*"))) == 1
    broken = [r for r in records if r.study == "f" and r.trial == 0 and r.role == "trial"]
    assert [(r.outcome.status, r.outcome.error_class) for r in broken] == [("failed", "bug")]
    quiet = MemoryHooks(
        act=lambda s, k, n: "bug" if s.method == "raiser" or (s.method == "loser" and k["x"] == 0.5) else ""
    )
    assert keys(r for r in records if r.study != "e") == keys(run_local(plan[:-1], quiet, execute))
    stopped = [r for r in records if r.study == "e"]
    assert sorted((r.trial, r.role) for r in stopped)[-1][0] == 4
    assert {r.outcome.status for r in stopped} == {"done", "pruned"}
    assert all(0.3 <= r.outcome.reached < 1 for r in stopped if r.outcome.status == "pruned")
    assert len({line["pid"] for line in lines_of(tmp_path)}) <= 4, "actors were not reused"
    again = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    assert not any(r.ran for r in again)
    assert len(again) == len(records)
    captured = capfd.readouterr()
    assert "time left" in captured.out
    assert "starts again" in captured.out
    assert "Traceback" not in captured.err


def test_two_workers_of_a_run_reduce_together(tmp_path: Path) -> None:
    plan = [study("w", space=None, workers=2, cores_per_run=1.0)]
    hooks = MemoryHooks(act="sum ranks", root=str(tmp_path))
    records = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    assert [(r.role, r.outcome.status, r.ran) for r in records] == [("trial", "done", True), ("final", "done", False)]
    assert records[0].outcome.objective == pytest.approx(0.3 + 0.02)
    assert list(tmp_path.glob("work/*")) == []
