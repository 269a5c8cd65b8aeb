"""Ray's start on a machine that is too busy for it."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError
from harness.tuning.local_ray import TRIES, started

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


class Machine:
    """Ray's start fails some times; each failed one leaves processes behind."""

    def __init__(self, fails: int, error: str = SLOW):
        self.fails, self.error, self.tried, self.running = fails, error, 0, 0

    def init(self) -> None:
        machine = self

        class Node:
            def __init__(self) -> None:
                machine.tried += 1
                machine.running += 1
                if machine.tried <= machine.fails:
                    raise Exception(machine.error)

            def kill_all_processes(self, check_alive: bool, allow_graceful: bool) -> None:
                assert (check_alive, allow_graceful) == (False, False)
                machine.running -= 1

        Node()


@pytest.mark.parametrize("fails", range(TRIES))
def test_a_slow_start_is_tried_again_and_leaves_nothing_behind(fails: int, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(fails)
    started(machine.init)
    assert (machine.tried, machine.running) == (fails + 1, 1)
    assert capsys.readouterr().err.count("too much else runs on this machine; once more\n") == fails


def test_a_machine_that_stays_busy_is_said_in_one_line() -> None:
    machine = Machine(TRIES)
    with pytest.raises(HarnessError, match=r"^Ray did not start within 30 s: .*\. The same command goes on"):
        started(machine.init)
    assert (machine.tried, machine.running) == (TRIES, 0)


def test_other_failures_of_ray_pass() -> None:
    machine = Machine(1, "no such address")
    with pytest.raises(Exception, match="no such address"):
        started(machine.init)
    assert machine.tried == 1
