"""Studies through Ray: overlap, death of an actor, several workers. Starts one runtime for the whole file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tuning_toys import MemoryHooks, execute, study

from harness.tuning import restarts
from harness.tuning.drivers import run_local, run_studies

pytestmark = pytest.mark.ray
TOY = "tuning_toys:execute"
FAULTS = {"dier": "die once", "loser": "lose gpu", "segfault": "die at step 5", "hanger": "hang once"}
"""What happens to trial 0 of these methods."""


def lines_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in root.glob("ran-*.json")]


def keys(records: Any) -> list[Any]:
    return sorted((r.study, r.trial, r.role, r.seed, r.key, r.outcome.status, r.outcome.objective) for r in records)


def test_one_sweep_overlaps_survives_a_kill_and_equals_the_local_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two studies are slow, in one an actor is killed by SIGKILL, in one whenever it comes to step 5, in one it loses
    its GPU, in one it hangs, one raises: rows equal those without Ray."""

    def act(study: Any, knobs: Any, seed: int) -> str:
        if knobs["x"] == 0.5 and study.method in FAULTS:
            return FAULTS[study.method]
        return {"slow1": "meet", "slow2": "meet", "raiser": "bug"}.get(study.method, "")

    plan = [
        study("a", method="slow1", search="rules", trials=2, seeds=(0, 1)),
        study("b", method="slow2", search="rules", trials=2, seeds=(0, 1)),
        study("c", method="dier", search="rules", trials=2),
        study("d", method="raiser", search="rules", trials=2),
        study("f", method="loser", search="rules", trials=2),
        study("g", method="segfault", search="rules", trials=2),
        study("h", method="hanger", search="rules", trials=2),
        study("e", method="stopped", trials=5, first_rung=0.3),
    ]
    monkeypatch.setattr(restarts, "HANG_FLOOR_S", 8.0)
    hooks = MemoryHooks(act=act, root=str(tmp_path))
    records = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    spans = sorted((line["started"], line["ended"]) for line in lines_of(tmp_path))
    long = [(a, b) for a, b in spans if b - a > 1]
    assert any(a[1] > b[0] + 0.5 for a, b in itertools.pairwise(long)), "no two trials overlapped"
    assert len(list(tmp_path.glob("died-*"))) == 1
    broken = [r for r in records if r.study == "f" and r.trial == 0 and r.role == "trial"]
    assert [(r.outcome.status, r.outcome.error_class) for r in broken] == [("failed", "bug")]
    twice = [r for r in records if r.study == "g" and r.trial == 0 and r.role == "trial"]
    assert [(r.outcome.status, r.outcome.error_class) for r in twice] == [("failed", "bug")]
    assert twice[0].outcome.error_message.startswith("its process died twice at the same place, train step 5")

    def broken_anyway(study: Any, knobs: Any, seed: int) -> str:
        return (
            "bug" if study.method == "raiser" or (study.method in ("loser", "segfault") and knobs["x"] == 0.5) else ""
        )

    quiet = MemoryHooks(act=broken_anyway)
    assert keys(r for r in records if r.study != "e") == keys(run_local(plan[:-1], quiet, execute))
    stopped = [r for r in records if r.study == "e"]
    assert sorted((r.trial, r.role) for r in stopped)[-1][0] == 4
    assert {r.outcome.status for r in stopped} == {"done", "pruned"}
    assert all(0.3 <= r.outcome.reached < 1 for r in stopped if r.outcome.status == "pruned")
    assert len({line["pid"] for line in lines_of(tmp_path)}) <= 7, "actors were not reused"
    again = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    assert not any(r.ran for r in again)
    assert len(again) == len(records)
    captured = capfd.readouterr()
    assert "time left" in captured.out
    assert "c  trial 0: its process died, the run starts again from its newest checkpoint" in captured.out
    assert "h  trial 0: it made no step for too long, the run starts again from its newest checkpoint" in captured.out
    assert "Traceback" not in captured.err


def test_two_workers_of_a_run_reduce_together(tmp_path: Path) -> None:
    plan = [study("w", space=None, workers=2, cores_per_run=1.0)]
    hooks = MemoryHooks(act="sum ranks", root=str(tmp_path))
    records = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    assert [(r.role, r.outcome.status, r.ran) for r in records] == [("trial", "done", True), ("final", "done", False)]
    assert records[0].outcome.objective == pytest.approx(0.3 + 0.02)
    assert list(tmp_path.glob("work/*")) == []


@pytest.mark.slow
def test_a_run_of_two_workers_says_that_one_died_and_what_one_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = [study(method, method=method, space=None, workers=2, cores_per_run=1.0) for method in ("dies", "full")]
    acts = {"dies": "die once", "full": "disk full"}
    records = run_studies(
        plan, MemoryHooks(act=lambda s, k, n: acts[s.method], root=str(tmp_path)), execute=TOY, store_root=tmp_path
    )
    outcomes = {r.study: r.outcome for r in records if r.role == "trial"}
    assert outcomes["dies"].status == "done"
    assert (outcomes["full"].status, outcomes["full"].error_class) == ("failed", "preempted")
    assert outcomes["full"].error_message.startswith("StoreError: no checkpoint could be written")
    out = capfd.readouterr().out
    assert "dies  trial 0: its process died, the run starts again from its newest checkpoint" in out
    assert "full  trial 0: no room for a checkpoint" in out
    assert out.count("starts again") == 1, "a full disk is no death"


def memory_mib() -> tuple[int, int]:
    """All of the machine's memory, and what of it is free."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {name: int(rest.split()[0]) >> 10 for name, rest in (line.split(":") for line in lines)}
    return values["MemTotal"], values["MemAvailable"]


@pytest.mark.slow
def test_ray_ends_a_run_for_its_memory_and_the_sweep_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's memory monitor, with a threshold 5 GiB above present use: for a machine that little else works on."""
    total, free = memory_mib()
    if free < 10_000:
        pytest.skip(f"{free} MiB are free, 10,000 are needed")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(total - free + 5120) / total:.4f}")
    monkeypatch.setenv("EAT_MB", "7000")
    plan = [study("o", method="eater", search="rules", trials=2), study("q", method="quiet", search="rules", trials=2)]
    hooks = MemoryHooks(act=lambda s, k, n: "eat" if s.method == "eater" and k["x"] == 0.5 else "", root=str(tmp_path))
    records = run_studies(plan, hooks, execute=TOY, store_root=tmp_path)
    assert keys(records) == keys(run_local(plan, MemoryHooks(), execute)), "the eater ran again with smaller groups"
    assert (
        "o  trial 0: it took more memory than there is, the run starts anew with smaller groups"
        in capfd.readouterr().out
    )
