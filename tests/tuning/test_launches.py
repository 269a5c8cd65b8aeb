"""A sweep that waits for machines that its cluster cannot get."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest
from ray.exceptions import RayError

from harness.cli.parsing import main
from harness.errors import EXIT_FAILED
from harness.tuning.launches import LaunchWatch, NoMachines, reasons

LACK = "InsufficientInstanceCapacity: there is no Spot\n capacity that matches your request"


def launch(name="a10g", at=100, details=LACK, count=1):
    return LaunchRequest("g5.2xlarge", name, count, LaunchRequest.Status.FAILED, at, at, details)


@pytest.fixture
def world():
    """A cluster of plain values, a watch over it, and what the watch said and did."""
    world = SimpleNamespace(now=100.0, fits=0, failed=[], pending=[], said=[], ended=[], broken=False)

    def status():
        if world.broken:
            raise RayError("no answer")
        return ClusterStatus(failed_launches=world.failed, pending_nodes=world.pending)

    watch = LaunchWatch(status, lambda: world.fits, world.ended.append, world.said.append, lambda: world.now)

    def until(seconds: float) -> None:
        while world.now < 100.0 + seconds:
            world.now += 1.0
            watch.on_step_end(0, [])

    world.until = until
    return world


def test_a_failed_launch_is_said_in_one_line_and_ends_the_sweep_within_a_minute(world, capsys):
    world.until(5)
    world.failed = [launch(at=104, count=4)]
    world.until(11)
    assert world.said == [
        "waiting for machines; the cluster cannot start a10g (4 asked for): InsufficientInstanceCapacity: there is no "
        "Spot capacity that matches your request"
    ]
    assert not world.ended
    world.until(60)
    assert len(world.said) == 1
    assert isinstance(world.ended[0], NoMachines)
    text = str(world.ended[0])
    assert "no machine came for" in text
    assert "a10g (4 asked for): InsufficientInstanceCapacity" in text
    assert "the same command goes on from there" in text
    assert "\n" not in text

    def ended(argv):
        raise world.ended[0]

    assert main(ended, []) == EXIT_FAILED
    assert capsys.readouterr().err == f"error: {text}\n"


def test_a_machine_on_its_way_or_there_is_waited_for(world):
    world.failed = [launch()]
    world.pending = [object()]
    world.until(120)
    assert not world.said
    world.pending, world.fits = [], 1
    world.until(240)
    assert not world.said
    assert not world.ended


def test_failures_of_before_the_machines_went_away_do_not_count(world):
    world.failed, world.fits = [launch(at=101)], 2
    world.until(50)
    world.fits = 0
    world.until(200)
    assert not world.said
    world.failed = [launch(at=330)]
    world.until(300)
    assert world.said
    assert world.ended


def test_a_head_that_does_not_answer_is_not_its_matter(world):
    world.broken = True
    world.until(100)
    assert not world.said
    assert not world.ended


def test_each_kind_of_machine_is_named_once_with_its_newest_reason():
    launches = [launch(at=100, details="old"), launch(at=110, details="new"), launch("l4", details=None), launch(at=10)]
    assert reasons(launches, 90) == "a10g (2 asked for): new; l4 (1 asked for): no reason given"
    assert reasons(launches, 1000) == ""
