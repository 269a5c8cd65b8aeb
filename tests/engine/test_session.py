"""The session of a run in this process."""

from __future__ import annotations

import pytest

from harness.engine.session import LocalSession, Pruned, Session


def test_alone_and_silent_by_default() -> None:
    session: Session = LocalSession()
    assert (session.rank, session.world_size, session.device, session.rungs) == (0, 1, "cpu", ())
    session.report(0.5, 0.1)


def test_a_refused_report_stops_the_run_as_system_exit() -> None:
    seen = []

    def goes_on(reached: float, objective: float) -> bool:
        seen.append((reached, objective))
        return objective > 0.2

    session = LocalSession(rungs=(0.25, 0.5), on_report=goes_on)
    session.report(0.25, 0.3)
    with pytest.raises(Pruned, match="50%"):
        session.report(0.5, 0.1)
    assert seen == [(0.25, 0.3), (0.5, 0.1)]
    assert issubclass(Pruned, SystemExit)
