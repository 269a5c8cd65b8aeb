"""What a person sees of a sweep."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from tuning_toys import MemoryHooks, execute, study

from harness.engine.heartbeat import Heartbeat
from harness.engine.session import Session
from harness.plan.payload import Payload
from harness.plan.studies import Outcome, Record
from harness.tuning import progress as module
from harness.tuning.drivers import run_local
from harness.tuning.progress import (
    ProgressDisplay,
    RunView,
    StudyView,
    View,
    clock_text,
    record_text,
    run_text,
    seconds_left,
    share_done,
    summary_text,
    view_of,
)
from harness.tuning.scheduler import Job, Scheduler


def test_time_left_hand_computed() -> None:
    """Study a: 2 of 5 closed at 10 s each, one has run 4 s: 6 + 2 x 10. Study b: unknown, 20 % after 6 s: 24 + 0."""
    runs = (RunView("a", 2, "trial", 4.0, {}, 4.0), RunView("b", 0, "trial", 6.0, {"step": 20, "total": 100}, 6.0))
    view = View((StudyView("a", 2, 5, 1, 10.0, 0.5), StudyView("b", 0, 1, 1, None, None)), runs)
    assert seconds_left(view, 1) == pytest.approx(26 + 24)
    assert seconds_left(view, 2) == pytest.approx(25)
    # However many run at a time, the longest run has to end.
    assert seconds_left(view, 50) == pytest.approx(24)
    assert summary_text(view, 1) == "2/6 runs closed, 2 running, time left 50 s"


def test_a_stage_that_has_begun_promises_its_own_pace() -> None:
    """100 s of training, then 10 of 40 images in 5 s: another 15 s, whatever the share of 115 s that is."""
    run = RunView("a", 0, "trial", 105.0, {"stage": "write-cams", "step": 10, "total": 40}, 5.0)
    view = View((StudyView("a", 0, 1, 1, None, None),), (run,))
    assert seconds_left(view, 1) == pytest.approx(15)


def test_a_resumed_stage_promises_the_pace_of_what_it_has_made_itself() -> None:
    """Resumed at step 80 of 100, 5 steps in 5 s: another 15 s. The bar counts the share of the stage."""
    beat = {"stage": "train", "step": 85, "total": 100, "pace": 1.0}
    view = View((StudyView("a", 0, 1, 1, None, None),), (RunView("a", 0, "trial", 5.0, beat, 5.0),))
    assert seconds_left(view, 1) == pytest.approx(15)
    assert share_done(view) == pytest.approx(0.85)


def test_time_left_of_a_study_that_has_not_begun_takes_the_mean_of_the_others() -> None:
    view = View((StudyView("a", 2, 2, 0, 10.0, 0.5), StudyView("b", 0, 3, 0, None, None)), ())
    assert seconds_left(view, 1) == pytest.approx(30)


def test_time_left_is_unknown_before_anything_is_and_zero_at_the_end() -> None:
    assert (
        seconds_left(View((StudyView("a", 0, 3, 1, None, None),), (RunView("a", 0, "trial", 3.0, {}, 3.0),)), 1) is None
    )
    assert seconds_left(View((StudyView("a", 3, 3, 0, None, None),), ()), 1) == 0.0
    assert seconds_left(View((StudyView("a", 3, 3, 0, 9.0, None),), ()), 1) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.4, "0 s"), (59.4, "59 s"), (90, "1 min 30 s"), (7260, "2 h 1 min"), (23520, "6 h 32 min")],
)
def test_clock_text(seconds: float | None, text: str) -> None:
    assert clock_text(seconds) == text


def test_lines_of_runs_and_records() -> None:
    told = {"stage": "train", "step": 30, "total": 200, "losses": {"cls": 0.12345, "ptc": 2.0}}
    assert (
        run_text(RunView("fsr", 3, "trial", 12.0, told, 12.0)) == "fsr  trial 3  train 30/200  12 s  cls 0.123  ptc 2"
    )
    assert run_text(RunView("fsr", 3, "trial", 1.0, {}, 1.0)) == "fsr  trial 3  starting  1 s"
    done = Record("fsr", 0, "final", 1, {}, "k", Outcome("done", 0.4567), True, 41.0)
    assert record_text(done) == "fsr  final 0 seed 1: done, objective 45.7, 41 s"
    smaller = Record(
        "fsr", 0, "final", 1, {}, "k", Outcome("done", 0.4567, 1.0, "oom", "ran with groups of 2"), True, 41.0
    )
    assert record_text(smaller) == "fsr  final 0 seed 1: done, objective 45.7, ran with groups of 2, 41 s"
    bug = Outcome("failed", None, 0.0, "bug", "ValueError: x\nTraceback")
    failed = Record("fsr", 2, "trial", 0, {}, "k", bug, True)
    assert record_text(failed) == "fsr  trial 2 seed 0: failed (bug) ValueError: x, 0 s"
    pruned = Record("fsr", 2, "trial", 0, {}, "k", Outcome("pruned", 0.2, 0.3), False)
    assert record_text(pruned) == "fsr  trial 2 seed 0: pruned, objective 20.0 at 30%, known"


def test_heartbeats_of_earlier_attempts_are_not_shown(tmp_path: Path) -> None:
    scheduler = Scheduler([study()], MemoryHooks(), store_root=tmp_path, clock=lambda: 1000.0)
    job = scheduler.next()
    assert isinstance(job, Job)
    Heartbeat(tmp_path / "work" / job.key, clock=lambda: 990.0).write(key=job.key, step=5, total=10)
    view = view_of(scheduler, 1003.0)
    assert (view.runs, view.queued, view.studies[0].running) == ((), 1, 0), "queued is not running"
    assert summary_text(view, 1) == "0/4 runs closed, 0 running, 1 queued, time left unknown"
    scheduler.begin(job.id)
    assert view_of(scheduler, 1003.0).runs == (RunView("s", 0, "trial", 3.0, {}, 3.0, 3.0),)
    Heartbeat(tmp_path / "work" / job.key, clock=lambda: 1001.0).write(key=job.key, stage="train", step=5, total=10)
    (run,) = view_of(scheduler, 1003.0).runs
    assert (run.heartbeat["step"], run.silent) == (5, 2.0)
    assert run_text(run) == "s  trial 0  train 5/10  3 s"
    (run,) = view_of(scheduler, 1131.0).runs
    assert run_text(run) == "s  trial 0  train 5/10  2 min 11 s  last heard 2 min 10 s ago"


def test_off_a_terminal_there_is_a_line_per_run_and_one_per_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLAIN_EVERY_S", 0.05)
    stream = io.StringIO()
    progress = ProgressDisplay(stream)

    def heartbeats(payload: Payload, session: Session) -> Outcome:
        Heartbeat(tmp_path / "work" / payload.key).write(key=payload.key, stage="train", step=1, total=2)
        _wait_for(stream, "train 1/2")
        return execute(payload, session)

    scheduler = Scheduler([study(space=None)], MemoryHooks(), store_root=tmp_path, on_record=progress.closed)
    with progress.watching(scheduler, lambda: 1):
        job = scheduler.next()
        assert isinstance(job, Job)
        scheduler.begin(job.id)
        scheduler.finish(job.id, heartbeats(job.payload, _Quiet()))
        scheduler.next()
    lines = stream.getvalue().splitlines()
    assert any(re.match(r"0/1 runs closed, 1 running, time left .+", line) for line in lines)
    assert "  s  trial 0  train 1/2" in stream.getvalue()
    assert "s  trial 0 seed 0: done, objective 79.5, 0 s" in lines
    assert lines[-1] == "1/1 runs closed, 0 running, time left 0 s"
    assert not any("known" in line for line in lines)


def test_on_a_terminal_a_live_table_shows_studies_and_runs(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = ProgressDisplay(stream)
    scheduler = Scheduler([study(space=None)], MemoryHooks(), on_record=progress.closed)
    with progress.watching(scheduler, lambda: 1):
        job = scheduler.next()
        assert isinstance(job, Job)
        scheduler.finish(job.id, execute(job.payload, _Quiet()))
        scheduler.next()
    assert "closed" in stream.getvalue()
    assert "1/1" in stream.getvalue()
    assert "done, objective 79.5" in stream.getvalue()


def test_a_local_sweep_says_nothing_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run_local([study(space=None)], MemoryHooks(), execute)
    assert capsys.readouterr().out == ""
    run_local([study(space=None)], MemoryHooks(), execute, show=True)
    assert "1/1 runs closed" in capsys.readouterr().out


class _Quiet:
    rank, world_size, device, rungs = 0, 1, "cpu", ()

    def report(self, reached: float, objective: float) -> None:
        raise AssertionError(json.dumps([reached, objective]))


def _wait_for(stream: io.StringIO, text: str) -> None:
    end = time.monotonic() + 10
    while text not in stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
