"""Order, resume, finals and faults of studies, in this process."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tuning_toys import PRESET, SPACE, MemoryHooks, execute, in_flight, peak, study

from harness.engine.session import LocalSession, Session
from harness.errors import BadInput
from harness.plan.payload import Origin, Payload
from harness.plan.studies import ClosedTrial, Outcome, Study
from harness.tuning.drivers import run_local
from harness.tuning.scheduler import Job, NoJob, Scheduler
from harness.tuning.search import sobol_row


def drawn(records: Any) -> list[tuple[str, int, str, int]]:
    return [(r.study, r.trial, r.role, r.seed) for r in records]


def test_order_of_one_study_and_its_finals() -> None:
    hooks = MemoryHooks()
    records = run_local([study(trials=3, seeds=(5, 6))], hooks, execute)
    assert drawn(records) == [
        ("s", 0, "trial", 5),
        ("s", 1, "trial", 5),
        ("s", 2, "trial", 5),
        *(("s", records[3].trial, "final", n) for n in (5, 6)),
    ]
    assert records[0].knobs == PRESET
    best = max(records[:3], key=lambda r: r.outcome.objective)
    assert records[3].trial == best.trial
    assert (records[3].key, records[3].ran) == (best.key, False)
    assert (records[4].knobs, records[4].ran) == (best.knobs, True)
    assert [r[:4] for r in hooks.rows] == drawn(records)


def test_studies_take_turns() -> None:
    records = run_local([study("a", method="m"), study("b", method="n")], MemoryHooks(), execute)
    assert [r.study for r in records] == ["a", "b"] * 5


def test_fixed_protocol_runs_the_preset_with_all_seeds() -> None:
    records = run_local([study(protocol="fixed", trials=20, seeds=(0, 1, 2))], MemoryHooks(), execute)
    assert [(r.role, r.seed, r.ran) for r in records] == [
        ("trial", 0, True),
        ("final", 0, False),
        ("final", 1, True),
        ("final", 2, True),
    ]
    assert run_local([study(protocol="fixed")], MemoryHooks(act="bug"), execute)[-1].role == "trial"
    assert all(r.knobs == PRESET for r in records)


def test_a_study_without_space_has_one_trial() -> None:
    records = run_local([study(space=None, trials=5)], MemoryHooks(), execute)
    assert [(r.role, r.ran) for r in records] == [("trial", True), ("final", False)]


def test_same_command_again_runs_nothing() -> None:
    hooks = MemoryHooks()
    first = run_local([study(seeds=(0, 1)), study("r", search="rules", method="rules")], hooks, execute)

    def never(payload: Payload, session: Session) -> Outcome:
        raise AssertionError("ran")

    again = run_local([study(seeds=(0, 1)), study("r", search="rules", method="rules")], hooks, never)
    assert not any(r.ran for r in again)
    assert sorted((r.study, r.trial, r.role, r.seed, r.key) for r in again) == sorted(
        (r.study, r.trial, r.role, r.seed, r.key) for r in first
    )


def test_larger_budget_continues_where_the_smaller_ended() -> None:
    hooks = MemoryHooks()
    first = run_local([study(trials=5)], hooks, execute)
    more = run_local([study(trials=8)], hooks, execute)
    undisturbed = run_local([study(trials=8)], MemoryHooks(), execute)
    assert [r.trial for r in more if r.ran] == [5, 6, 7]
    assert {r.trial: r.key for r in more if r.role == "trial"} == {
        r.trial: r.key for r in undisturbed if r.role == "trial"
    }
    assert {r.key for r in first if r.role == "trial"} <= {r.key for r in more}


@pytest.mark.parametrize("search", ["tpe", "rules"])
def test_killed_at_any_run_and_resumed_equals_undisturbed(search: str, tmp_path: Path) -> None:
    plan = [study("a", method="a", search=search, seeds=(0, 1)), study("b", method="b", search=search, seeds=(0, 1))]

    def keys(records: Any) -> list[Any]:
        return sorted((r.study, r.trial, r.role, r.seed, r.key, r.outcome.objective) for r in records)

    undisturbed = run_local(plan, MemoryHooks(), execute, store_root=tmp_path / "whole")
    for stop in (0, 1, 4, 9):
        hooks, count = MemoryHooks(), iter(range(100))

        def dies(payload: Payload, session: Session, count: Any = count, stop: int = stop) -> Outcome:
            if next(count) == stop:
                raise KeyboardInterrupt
            return execute(payload, session)

        root = tmp_path / f"{search}{stop}"
        with pytest.raises(KeyboardInterrupt):
            run_local(plan, hooks, dies, store_root=root)
        assert keys(run_local(plan, hooks, execute, store_root=root)) == keys(undisturbed)
        assert list(root.glob("work/*")) == []


def test_rules_are_a_pure_function_of_seed_and_number_for_every_space() -> None:
    records = run_local([study(search="rules", seeds=(3,), trials=6)], MemoryHooks(), execute)
    for record in records[1:6]:
        assert {k: record.knobs[k] for k in SPACE.knobs} == SPACE.from_unit(sobol_row(3, record.trial - 1))
    rows = np.array([sobol_row(3, i) for i in range(8)])
    assert np.array_equal(sobol_row(3, 5), rows[5])
    assert not np.array_equal(sobol_row(4, 5), rows[5])
    # A scrambled Sobol sequence puts exactly one of 8 points into each eighth of every axis.
    assert (np.sort(np.floor(rows * 8), axis=0) == np.arange(8)[:, None]).all()


def test_wait_then_finals_then_finished_with_two_in_flight() -> None:
    scheduler = Scheduler([study(trials=2, seeds=(0, 1))], MemoryHooks())
    first, second = in_flight(scheduler, 2)
    assert scheduler.next() is NoJob.WAIT
    scheduler.finish(second.id, Outcome("done", 0.4))
    assert scheduler.next() is NoJob.WAIT
    scheduler.finish(first.id, Outcome("done", 0.6))
    (final,) = in_flight(scheduler, 1)
    assert (final.planned.role, final.planned.trial, final.planned.seed, final.rungs) == ("final", 0, 1, ())
    assert final.payload.origin == Origin(sweep="w", study="s", trial=0, role="final")
    assert scheduler.next() is NoJob.WAIT
    scheduler.finish(final.id, Outcome("done", 0.5))
    assert scheduler.next() is NoJob.FINISHED


def test_a_key_that_two_studies_share_runs_once() -> None:
    scheduler = Scheduler([study("a", space=None), study("b", space=None)], MemoryHooks())
    (job,) = in_flight(scheduler, 1)
    assert scheduler.next() is NoJob.WAIT
    scheduler.finish(job.id, Outcome("done", 0.5))
    assert scheduler.next() is NoJob.FINISHED
    assert [(r.study, r.role, r.ran) for r in scheduler.records] == [
        ("a", "trial", True),
        ("b", "trial", False),
        ("a", "final", False),
        ("b", "final", False),
    ]


def test_bug_is_a_row_with_its_traceback_and_the_sweep_goes_on() -> None:
    hooks = MemoryHooks(act=lambda s, knobs, seed: "bug" if knobs["x"] == 0.5 else "")
    records = run_local([study()], hooks, execute)
    assert records[0].outcome.status == "failed"
    assert records[0].outcome.error_class == "bug"
    assert records[0].outcome.error_message.startswith("ValueError: broken on purpose\n")
    assert "tuning_toys.py" in records[0].outcome.error_message
    assert [r.outcome.status for r in records[1:]] == ["done"] * 4
    assert records[4].trial != 0


def test_failed_rows_wait_for_retry_and_preempted_ones_do_not() -> None:
    hooks = MemoryHooks(act="bug")
    run_local([study(space=None)], hooks, execute)
    hooks.act = ""
    assert [r.ran for r in run_local([study(space=None)], hooks, execute)] == [False]  # No final of nothing.
    records = run_local([study(space=None)], hooks, execute, retry="failed")
    assert [(r.ran, r.outcome.status) for r in records] == [(True, "done"), (False, "done")]
    hooks.runs[records[0].key] = Outcome("failed", None, 0.0, "preempted", "")
    assert run_local([study(space=None)], hooks, execute)[0].ran


def test_all_trials_failed_means_no_finals() -> None:
    records = run_local([study(seeds=(0, 1))], MemoryHooks(act="bug"), execute)
    assert [(r.role, r.outcome.status) for r in records] == [("trial", "failed")] * 4


def test_out_of_memory_is_tried_once_more_with_low_memory() -> None:
    (first, *_) = run_local([study(space=None)], MemoryHooks(act="oom"), execute)
    assert first.outcome.status == "done"
    seen: list[Any] = []

    def always(payload: Payload, session: Session) -> Outcome:
        seen.append(payload.machine.low_memory)
        raise torch.OutOfMemoryError("no room")

    (first, *_) = run_local([study(space=None)], MemoryHooks(), always)
    assert seen == [False, True]
    assert (first.outcome.status, first.outcome.error_class) == ("failed", "oom")


def test_objectives_that_are_not_finite_fail() -> None:
    records = run_local([study(space=None)], MemoryHooks(), lambda p, s: Outcome("done", float("nan")))
    assert (records[0].outcome.status, records[0].outcome.error_class) == ("failed", "bug")


def test_exit_without_report_is_a_bug() -> None:
    records = run_local([study(space=None)], MemoryHooks(), lambda p, s: sys.exit(3))
    assert (records[0].outcome.status, records[0].outcome.error_class) == ("failed", "bug")


def test_a_trial_after_a_crashed_one_finds_a_clean_process() -> None:
    seen = []

    def messy(payload: Payload, session: Session) -> Outcome:
        state = (
            random.random(),
            float(np.random.rand()),
            torch.rand(1).item(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        )
        seen.append(state)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.set_grad_enabled(False)
        raise ValueError("left a mess")

    run_local([study(trials=3)], MemoryHooks(), messy)
    assert seen == [seen[0]] * 3
    assert seen[0][3:] == (torch.float32, 1, True)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_num_threads(1)


def test_tpe_with_two_in_flight_beats_random_search() -> None:
    """40 trials, always two in flight; best value found, over 8 seeds, against uniform draws."""

    def best_of_tpe(seed: int) -> float:
        hooks = MemoryHooks()
        scheduler = Scheduler([study(trials=40, seeds=(seed,))], hooks)
        flying = [j for j in (scheduler.next(), scheduler.next()) if isinstance(j, Job)]
        while flying:
            job = flying.pop(0)
            scheduler.finish(job.id, Outcome("done", peak(job.planned.knobs)))
            job = scheduler.next()
            if isinstance(job, Job):
                flying.append(job)
        return max(r.outcome.objective or 0 for r in scheduler.records)

    def best_of_random(seed: int) -> float:
        rows = np.random.default_rng(seed).random((39, SPACE.dims))
        return max([peak(PRESET), *(peak(SPACE.from_unit(row)) for row in rows)])

    tpe = np.array([best_of_tpe(s) for s in range(8)])
    uniform = np.array([best_of_random(s) for s in range(8)])
    assert tpe.mean() > uniform.mean()
    assert (tpe > uniform).sum() >= 6
    assert 1 - np.median(tpe) < 0.5 * (1 - np.median(uniform))


def test_bad_studies_are_refused_all_at_once() -> None:
    bad = [
        study("a", trials=0, search="grid"),
        study("a", preset_knobs={**PRESET, "x": 1.5}),
        study("c", preset_knobs={"low": 0.2, "high": 0.5, "y": 0.1}),
        study("d", seeds=(1, 1), workers=0),
    ]
    with pytest.raises(BadInput) as caught:
        run_local(bad, MemoryHooks(), execute)
    found = {p.where: p for p in caught.value.problems}
    assert set(found) == {"studies", "trials", "search", "toy.x", "seeds", "workers"}
    assert len(caught.value.problems) == 7


def test_knobs_pinned_since_are_taken_from_the_preset_and_points_outside_the_space_are_not_learnt() -> None:
    hooks = MemoryHooks()
    run_local([study()], hooks, execute)
    moved = {**PRESET, "fixed": 8}
    records = run_local([study(preset_knobs=moved)], hooks, execute)
    assert all(r.knobs["fixed"] == 8 for r in records)
    assert [r.ran for r in records[:4]] == [True] * 4
    hooks.closed["s"] = [ClosedTrial(1, {"x": 9.0, "low": 0.2, "high": 0.5}, "gone", Outcome("done", 1.0))]
    records = run_local([study()], hooks, execute)
    assert sorted(r.trial for r in records if r.role == "trial") == [0, 1, 2, 3]


def test_neither_ray_nor_torch_is_imported_when_all_is_known(tmp_path: Path) -> None:
    code = """
import sys
from tuning_toys import MemoryHooks, study
from harness.plan.studies import Outcome
from harness.tuning.drivers import run_studies
hooks = MemoryHooks()
resolved = hooks.resolve(study(), study().preset_knobs, 0)
hooks.runs[resolved.key] = Outcome("done", 0.5)
records = run_studies([study(space=None)], hooks, store_root=sys.argv[1])
assert [r.ran for r in records] == [False, False], records
assert "ray" not in sys.modules and "torch" not in sys.modules
"""
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.dumps(sorted(os.listdir(tmp_path))) == "[]"


def test_study_defaults() -> None:
    one: Study = study()
    assert (one.budget, one.threads, one.stops_early) == (4, 1, False)
    assert study(cores_per_run=2.0).threads == 2
    assert LocalSession().rungs == ()
