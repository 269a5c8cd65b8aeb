"""Steps of methods beside the floor of their matrix products."""

from __future__ import annotations

import pytest

from benchmarks import method_step
from benchmarks.suites import toco_step, unia_step


@pytest.mark.parametrize(("suite", "name", "last"), [(toco_step, "toco", "all"), (unia_step, "unia", "refined")])
def test_cases(suite, name, last):
    cases = {c.name: c for c in suite.cases(quick=True)}
    assert set(cases) == {f"{name} {size} {phase}" for size in ("lab", "smoke") for phase in ("before-seg", last)}
    case = cases[f"{name} smoke {last}"]
    assert case.equal().startswith("floor: ")
    case.ours()
    assert all(c.goal == method_step.GOAL for c in suite.cases(quick=False))
