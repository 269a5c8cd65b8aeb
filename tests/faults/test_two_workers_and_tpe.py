"""Rows of one machine once more: nine with two workers a run, four with `tpe` and early stopping."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import test_one_machine as machine
import test_one_store as store
from sweeps import Bench

pytestmark = pytest.mark.faults
TABLE = "two_workers_and_tpe"
Row = Callable[[Bench], None]
TWO_WORKERS: dict[str, Row] = {
    "worker_killed": machine.test_worker_killed,
    "segmentation_fault": machine.test_segmentation_fault,
    "raise": machine.test_raise,
    "hang": machine.test_hang,
    "stopped_and_continued": machine.test_stopped_and_continued,
    "driver_killed": machine.test_driver_killed,
    "driver_terminated": machine.test_driver_terminated,
    "disk_full": store.test_disk_full,
    "checkpoint_damaged": store.test_checkpoint_damaged,
}
TPE: dict[str, Row] = {
    "worker_killed": machine.test_worker_killed,
    "segmentation_fault": machine.test_segmentation_fault,
    "driver_killed": machine.test_driver_killed,
    "control_c": partial(machine.test_control_c, times=1),
}
"""Six trials, of which the later ones learn from those that closed before: which they are depends on what breaks."""


@pytest.mark.parametrize("row", TWO_WORKERS)
def test_two_workers(bench: Bench, row: str) -> None:
    bench.of("two workers", workers="2")
    TWO_WORKERS[row](bench)


@pytest.mark.parametrize("row", TPE)
def test_tpe(bench: Bench, row: str) -> None:
    bench.of("`tpe`", search="tpe", trials="6")
    TPE[row](bench)
