"""FSR's step launches no more than its goal; the count does not depend on what the numbers are."""

from __future__ import annotations

from benchmarks.launches import GOAL, row


def test_fsr_at_its_paper_preset_stays_below_its_goal() -> None:
    found = row("fsr", "default")
    assert found.together <= GOAL < found.apart
