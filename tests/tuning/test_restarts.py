"""What becomes of runs whose process dies or hangs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tuning_toys import MemoryHooks, in_flight, study

from harness.engine.heartbeat import Heartbeat
from harness.plan.studies import Outcome
from harness.tuning import restarts
from harness.tuning.faults import BUG, NODE, OOM, PREEMPTED
from harness.tuning.restarts import HUNG, Deaths, Position, Watch
from harness.tuning.scheduler import NoJob, Scheduler


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (Position("train", 37, 0.05), Position("train", 37, 0.05), True),
        (Position("train", 30, 0.05), Position("train", 70, 0.05), True),  # 40 steps are 2 s: no closer is a run heard
        (Position("train", 30, 0.05), Position("train", 71, 0.05), False),
        (Position("train", 30, 3.0), Position("train", 31, 3.0), False),
        (Position("train", 30), Position("train", 30), True),
        (Position("train", 30), Position("write-cams", 30), False),
        (Position("start", 0), Position("start", 0), True),
    ],
)
def test_the_same_position(one, two, same):
    assert one.same(two) is same
    assert two.same(one) is same


def ends(deaths):
    """How each death of a run in a row ends it: the fault class, or None where it starts again."""
    run = Deaths()
    outcomes = [run.after(cause, position, "why") for cause, position in deaths]
    return [outcome and outcome.error_class for outcome in outcomes]


A, B, C, D = (Position("train", step, 0.1) for step in (10, 200, 400, 600))


@pytest.mark.parametrize(
    ("deaths", "expected"),
    [
        ([(PREEMPTED, A), (PREEMPTED, B), (PREEMPTED, C)], [None, None, None]),
        ([(PREEMPTED, A), (PREEMPTED, B), (PREEMPTED, C), (PREEMPTED, D)], [None, None, None, PREEMPTED]),
        ([(PREEMPTED, A), (PREEMPTED, A)], [None, BUG]),
        ([(PREEMPTED, A), (PREEMPTED, B), (PREEMPTED, A)], [None, None, BUG]),
        ([(NODE, A), (NODE, A), (NODE, A)], [None, None, None]),  # a node that is taken away is nobody's bug
        ([(PREEMPTED, None), (PREEMPTED, None), (PREEMPTED, None), (PREEMPTED, None)], [None, None, None, PREEMPTED]),
        ([(OOM, A), (OOM, B)], [None, OOM]),
        ([(OOM, A), (PREEMPTED, A)], [None, None]),
        ([(OOM, A), (OOM, None), (OOM, B)], [None, None, OOM]),  # an idle process was ended with the eater
        ([(OOM, None), (OOM, None), (OOM, None), (OOM, None)], [None, None, None, OOM]),
        ([(HUNG, A), (HUNG, C)], [None, BUG]),
        ([(BUG, A)], [BUG]),
    ],
)
def test_what_follows_a_death(deaths, expected):
    assert ends(deaths) == expected


def test_a_row_says_where_a_run_died():
    run = Deaths()
    run.after(PREEMPTED, A, "")
    text = run.after(PREEMPTED, A, "exit code -11").error_message
    assert text == (
        "its process died twice at the same place, train step 10: killed for memory, or broken in compiled code\n"
        "exit code -11"
    )


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_heartbeat_knows_what_a_step_takes(tmp_path):
    clock = Clock()
    heartbeat = Heartbeat(tmp_path / "progress.json", 0.0, clock=clock)
    for step in range(1, 50):
        heartbeat.write(stage="train", step=step, total=100)
        clock.now += 0.5
    assert heartbeat._fields["pace"] == pytest.approx(0.5)
    heartbeat.write(stage="rung", step=49, total=100)
    assert heartbeat._fields["pace"] == 0.0
    # Scoring reports batches of images, not each of them: silence is measured by the batch.
    for step in range(0, 80, 16):
        heartbeat.write(stage="score test", step=step, total=80)
        clock.now += 32.0
    assert (heartbeat._fields["pace"], heartbeat._fields["every"]) == pytest.approx((2.0, 32.0))


def told(stage, step, every, total=100, updated=1.0):
    return {"updated": updated, "stage": stage, "step": step, "pace": every, "every": every, "total": total}


def test_only_a_silence_much_longer_than_usual_is_a_hang():
    """Steps of 30 s: 20 of them. Steps of 0.1 s: five minutes."""
    clock, heartbeats = Clock(), {1: {}, 2: {}}
    jobs = [SimpleNamespace(id=n) for n in heartbeats]
    watch = Watch(lambda job: heartbeats[job.id], clock)
    assert watch.hung(jobs) == []
    heartbeats |= {1: told("train", 5, 30.0), 2: told("train", 7, 0.1)}
    assert watch.hung(jobs) == []
    clock.now += 299
    assert watch.hung(jobs) == []
    clock.now += 2
    assert [(job.id, why) for job, why in watch.hung(jobs)] == [
        (2, "no step for 301 s at train step 7, where one takes 0.1 s")
    ]
    heartbeats[2] = {**heartbeats[2], "updated": 2.0}
    clock.now += 290
    assert watch.hung(jobs) == []
    clock.now += 10
    assert [job.id for job, _ in watch.hung(jobs)] == [1]


def test_where_nothing_tells_the_usual_silence_an_hour_is_a_hang():
    """The first batch of images, the last step, a rung; starting, which may read a large dataset, is never one."""
    heartbeats = {
        1: told("score test", 0, 0.0),
        2: told("train", 100, 0.1),
        3: told("rung", 50, 0.0),
        4: told("start", 0, 0.0),
        5: {},
        6: told("score test", 16, 400.0, total=400),
    }
    clock, jobs = Clock(), [SimpleNamespace(id=n) for n in heartbeats]
    watch = Watch(lambda job: heartbeats[job.id], clock)
    watch.hung(jobs)
    clock.now += 3599
    assert watch.hung(jobs) == []
    clock.now += 2
    assert [(job.id, why) for job, why in watch.hung(jobs)] == [
        (1, "no step for 3601 s at score test"),
        (2, "no step for 3601 s at train step 100, where one takes 0.1 s"),
        (3, "no step for 3601 s at rung step 50"),
    ]
    clock.now += 20 * 400 - 3600
    assert [job.id for job, _ in watch.hung(jobs)] == [1, 2, 3, 6]


def opened(tmp_path, **changes):
    hooks = MemoryHooks()
    scheduler = Scheduler([study(search="rules", trials=2, **changes)], hooks, store_root=tmp_path)
    return hooks, scheduler


def heard(tmp_path, job, step, clock=None):
    """The job tells where it is."""
    heartbeat = Heartbeat(tmp_path / "work" / job.key, 0.0)
    heartbeat.write(key=job.key, stage="train", step=step, total=100)


def test_a_dead_run_starts_again_and_a_bug_is_closed(tmp_path):
    hooks, scheduler = opened(tmp_path)
    (job,) = in_flight(scheduler, 1)
    for step in (10, 60):
        scheduler.begin(job.id)
        heard(tmp_path, job, step)
        assert scheduler.died(job.id, PREEMPTED, "killed") is not None
        again = scheduler.next()
        assert (again.id, again.key, again.planned) == (job.id, job.key, job.planned)
        assert again.payload == job.payload
    scheduler.begin(job.id)
    heard(tmp_path, job, 10)
    assert scheduler.died(job.id, PREEMPTED, "killed") is None
    assert [(r.outcome.status, r.outcome.error_class) for r in scheduler.records] == [("failed", BUG)]
    assert "died twice at the same place, train step 10" in hooks.rows[0][-1].error_message
    assert scheduler.next().planned.trial == 1, "the sweep goes on"


def test_a_beat_of_an_earlier_attempt_is_not_this_ones_position(tmp_path):
    """A process that dies before it is heard, twice: as with a lost GPU, free."""
    _, scheduler = opened(tmp_path)
    (job,) = in_flight(scheduler, 1)
    heard(tmp_path, job, 10)
    for _ in range(3):
        scheduler.begin(job.id)
        assert scheduler.heartbeat(scheduler.jobs()[0]) == {}
        assert scheduler.died(job.id, PREEMPTED, "")
        scheduler.next()


def test_out_of_memory_is_tried_once_with_smaller_groups(tmp_path):
    _, scheduler = opened(tmp_path)
    (job,) = in_flight(scheduler, 1)
    assert scheduler.died(job.id, OOM, "ended with another that ate")
    assert scheduler.next().payload == job.payload, "before it was heard it took no memory"
    scheduler.begin(job.id)
    heard(tmp_path, job, 3)
    assert scheduler.died(job.id, OOM, "the node was low on memory")
    again = scheduler.next()
    assert again.id == job.id
    assert again.payload == job.payload.with_low_memory()
    scheduler.begin(job.id)
    heard(tmp_path, job, 3)
    assert not scheduler.died(job.id, OOM, "the node was low on memory")
    assert scheduler.records[0].outcome.error_class == OOM
    assert scheduler.next().planned.trial == 1


def test_queued_is_not_running(tmp_path):
    now = Clock()
    hooks = MemoryHooks()
    scheduler = Scheduler([study(trials=4)], hooks, store_root=tmp_path, clock=now)
    one, two = in_flight(scheduler, 2)
    now.now += 50
    assert [job.begun for job in scheduler.jobs()] == [False, False]
    scheduler.begin(one.id)
    now.now += 7
    scheduler.finish(one.id, Outcome("done", 0.5))
    assert scheduler.records[0].seconds == 7, "the time in the queue is nobody's"
    assert [job.begun for job in scheduler.jobs()] == [False]
    scheduler.begin(two.id)
    assert [job.begun for job in scheduler.jobs()] == [True]
    assert scheduler.next() is not NoJob.FINISHED


def test_limits_are_what_the_docs_say():
    assert (restarts.FREE_RESTARTS, restarts.HANG_TIMES, restarts.HANG_FLOOR_S) == (3, 20, 300)
    assert restarts.HANG_UNKNOWN_S == 3600
