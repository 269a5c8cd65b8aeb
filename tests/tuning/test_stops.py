"""Trials that are stopped at rungs, and what of them survives a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_toys import PRESET, SPACE, MemoryHooks, in_flight, study

from harness.engine.session import Session
from harness.plan.payload import Payload
from harness.plan.studies import Outcome
from harness.tuning.drivers import run_local
from harness.tuning.ray_driver import _scratch_folders
from harness.tuning.scheduler import Job, Scheduler
from harness.tuning.search import Tpe


def test_points_in_flight_survive_a_kill_with_their_numbers(tmp_path: Path) -> None:
    hooks = MemoryHooks()
    first = in_flight(Scheduler([study(trials=6)], hooks, store_root=tmp_path), 3)
    resumed = in_flight(Scheduler([study(trials=6)], hooks, store_root=tmp_path), 3)
    assert {(j.planned.trial, j.key) for j in first} == {(j.planned.trial, j.key) for j in resumed}
    assert sorted(p.parent.name for p in tmp_path.glob("work/*/trial.json")) == sorted(j.key for j in first[1:])


def test_asha_stops_the_worse_half_but_never_trial_0_nor_finals() -> None:
    tries = {0: 0.30, 1: 0.50, 2: 0.20, 3: 0.60, 4: 0.35}
    numbers = iter(tries)

    def scripted(payload: Payload, session: Session) -> Outcome:
        if payload.origin.role == "final":
            assert session.rungs == ()
            return Outcome("done", 0.9)
        score = tries[next(numbers)]
        for rung in session.rungs:
            session.report(rung, score)
        return Outcome("done", score)

    hooks = MemoryHooks()
    records = run_local([study(trials=5, first_rung=0.3, seeds=(0, 1))], hooks, scripted)
    # Medians met at the rung at 0.3: none, .3, .4, .3, .4; trial 0 is worst among equals and stays.
    assert [(r.outcome.status, r.outcome.reached) for r in records[:5]] == [
        ("done", 1.0),
        ("done", 1.0),
        ("pruned", 0.3),
        ("done", 1.0),
        ("pruned", 0.3),
    ]
    assert records[2].outcome.objective == 0.20
    assert [(r.trial, r.role) for r in records[5:]] == [(3, "final"), (3, "final")]
    again = run_local([study(trials=5, first_rung=0.3, seeds=(0, 1))], hooks, scripted)
    assert not any(r.ran for r in again)
    # A pruned row closes its trial, and nothing that asks for full fidelity.
    one = study("full", space=None, preset_knobs=records[2].knobs)
    assert run_local([one], hooks, lambda p, s: Outcome("done", 0.2))[0].ran


@pytest.mark.parametrize("restarts", [(), (2,), (4,), (1, 3, 5)])
def test_a_stop_at_a_rung_is_the_same_after_a_restart(restarts: tuple[int, ...], tmp_path: Path) -> None:
    """Two trials in flight, killed after some of their reports; settings, scores and rows survive, memory does not."""
    at_rung = {0: 0.30, 1: 0.50, 2: 0.20, 3: 0.28, 4: 0.35, 5: 0.45}
    hooks = MemoryHooks()

    def fresh() -> tuple[Scheduler, dict[int, Job]]:
        scheduler = Scheduler([study(trials=6, first_rung=0.6)], hooks, store_root=tmp_path)
        return scheduler, {j.planned.trial: j for j in in_flight(scheduler, 2)}

    scheduler, flying = fresh()
    decisions: dict[int, bool] = {}
    for count in range(6):
        if count in restarts:
            scheduler, flying = fresh()
        trial = min(n for n in flying if n not in decisions)
        decisions[trial] = scheduler.report(flying[trial].id, 0.6, at_rung[trial])
        if len(decisions) < 2:
            continue
        # The trial before this one ends, the present one stays in flight.
        ends = sorted(n for n in flying if n in decisions)[0]
        job = flying.pop(ends)
        scheduler.finish(job.id, Outcome("done", 0.6) if decisions[ends] else scheduler.pruned(job.id))
        job = scheduler.next()
        if isinstance(job, Job) and job.planned.role == "trial":
            flying[job.planned.trial] = job
    # Medians met: none, .3, .4, .3, .29, .3.
    assert decisions == {0: True, 1: True, 2: False, 3: False, 4: True, 5: True}


@pytest.mark.parametrize(
    "changes", [{"trials": 3}, {"search": "rules"}, {"first_rung": 1.0}, {"protocol": "fixed"}, {"space": None}]
)
def test_no_rungs_where_nothing_may_be_stopped(changes: dict[str, Any]) -> None:
    scheduler = Scheduler([study(**{"trials": 8, "first_rung": 0.5, **changes})], MemoryHooks())
    assert in_flight(scheduler, 1)[0].rungs == ()


def test_tpe_counts_pruned_trials_as_worse_than_done_ones_whatever_they_scored() -> None:
    tpe = Tpe(SPACE, PRESET, 0)
    outcomes = [
        Outcome("done", 0.2),
        Outcome("pruned", 0.9, 0.3),
        Outcome("failed", None, 0.0, "bug"),
        Outcome("pruned", None, 0.3),
    ]
    for number, outcome in enumerate(outcomes):
        tpe.ask(number)
        tpe.tell(number, outcome)
    assert [t.state.name for t in tpe.history().trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert tpe.history().best_trial.number == 0


def test_drivers_of_one_store_do_not_remove_each_others_snapshots(tmp_path: Path) -> None:
    with _scratch_folders(tmp_path, 2) as (_, one):
        (one / "snapshot").write_text("x")
        with _scratch_folders(tmp_path, 2) as (scratch, two):
            assert two.parent == one.parent == tmp_path / "work"
            assert scratch.is_dir()
        assert (one / "snapshot").exists()
        assert not two.exists()
        assert not scratch.exists()
    assert list(tmp_path.glob("work/*")) == []
    with _scratch_folders(tmp_path, 1) as (scratch, one):
        assert one == scratch
