"""A run that is told to leave: a checkpoint at the next step, and the same numbers from there."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from test_loop import run

from harness.engine import leaving
from harness.engine.leaving import NOTICE, Left, told_by_sigterm


@pytest.fixture
def at_step(monkeypatch):
    """Makes the notice of this process come at the n-th look, one look a step."""

    def at(n: int) -> None:
        looks = iter(range(1, 100))
        monkeypatch.setattr(NOTICE, "told", lambda: next(looks) == n)

    return at


def test_no_step_is_lost_and_the_numbers_are_the_same(tmp_path, at_step):
    whole, steps, _ = run(tmp_path / "a")
    at_step(7)
    with pytest.raises(Left, match="told to leave, it wrote a checkpoint at step 7 of 10: no step is lost"):
        run(tmp_path / "b")
    at_step(99)
    resumed, again, _ = run(tmp_path / "b")
    assert again.resumed_at == 7
    assert again.steps == steps.steps
    assert all(torch.equal(value, resumed.state_dict()[n]) for n, value in whole.state_dict().items())


def test_after_the_last_step_there_is_nothing_to_leave(tmp_path, at_step):
    at_step(10)
    assert run(tmp_path)[1].resumed_at == 0


def test_a_file_is_a_notice_as_long_as_it_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(leaving, "LOOK_EVERY_S", 0.0)
    notice, file = leaving.Notice(), tmp_path / "leave"
    notice.watch(file, tmp_path / "other")
    assert not notice.told()
    file.touch()
    assert notice.told()
    notice.watch(tmp_path / "other")
    assert not notice.told()


def test_files_are_looked_at_twice_a_second_at_most(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    notice, file = leaving.Notice(), tmp_path / "leave"
    notice.watch(file)
    assert not notice.told()
    file.touch()
    now[0] += 0.4
    assert not notice.told()
    now[0] += 0.2
    assert notice.told()


def test_the_first_sigterm_is_a_notice_and_the_second_an_end():
    before = signal.getsignal(signal.SIGTERM)
    with told_by_sigterm() as notice:
        assert not notice.told()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.told()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert not NOTICE.told()
    assert signal.getsignal(signal.SIGTERM) is before
