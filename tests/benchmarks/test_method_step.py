"""Steps of methods beside the floor of their matrix products."""

from __future__ import annotations

import pytest

from benchmarks import method_step
from benchmarks.suites import fsae_step, toco_step, unia_step


@pytest.mark.parametrize(("suite", "name", "last"), [(toco_step, "toco", "all"), (unia_step, "unia", "refined")])
def test_cases(suite, name, last):
    cases = {c.name: c for c in suite.cases(quick=True)}
    assert set(cases) == {f"{name} {size} {phase}" for size in ("lab", "smoke") for phase in ("before-seg", last)}
    case = cases[f"{name} smoke {last}"]
    assert case.equal().startswith("floor: ")
    case.ours()
    assert all(c.goal == method_step.GOAL for c in suite.cases(quick=False))


def test_a_plugin_beside_its_base_and_two_passes():
    assert {c.name for c in fsae_step.cases(quick=True)} == {"cam+fsae lab", "cam+fsae smoke"}
    case = next(c for c in fsae_step.cases(quick=True) if c.unit == "shapes_vit")
    assert case.equal() == "2 losses of the base bit-equal"
    case.reference()
    case.ours()
    assert all(c.goal == 1 / 1.15 for c in fsae_step.cases(quick=False))
